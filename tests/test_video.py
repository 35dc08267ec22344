"""Films: same frames, same times, same sound; steady colours; and `kill -9` costs nothing that was done."""
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import fails

from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import UserError
from deoldify_lite.photos import sample_photos
from deoldify_lite.video import Film, colorize_video

av = pytest.importorskip('av')
pytest.importorskip('cv2')


def flickering(x):
    "Stands in for a network: the photo's luma, in colours that change from call to call as networks' do from frame to frame."
    rng = np.random.default_rng(abs(int(x.sum() * 1e3)) % 2**32)
    x = x.copy()
    x[:, 0] += .8 + rng.normal(0, .3, (len(x), 1, 1))
    x[:, 2] -= .8 + rng.normal(0, .3, (len(x), 1, 1))
    return x


def colorizer(size=64): return Colorizer(None, size, name='flickering', run=flickering)


def scenes(n, w=128, h=96, noise=3):
    "`n` grey frames of real photos: a pan, a cut, a zoom; with the grain of a film."
    rng = np.random.default_rng(0)
    china, cat = [Image.open(sample_photos()/f).convert('L') for f in ('china.jpg', 'chelsea.png')]
    for i in range(n):
        if i < n // 2: frame = china.resize((w * 2, h * 2)).crop((i % w, 10, i % w + w, 10 + h))
        else: frame = cat.crop((i % 100, i % 100 * .66, cat.width - i % 100, cat.height - i % 100 * .66)).resize((w, h))
        yield (np.asarray(frame, float) + rng.normal(0, noise, (h, w))).clip(0, 255).astype(np.uint8)


def clip(path, n=40, times=None, sound=True, subtitles=False, codec='libx264', pix_fmt='yuv420p', full=False, rate=25, base=None, **size):
    "Make a film of `scenes`; frame `i` at `times[i]` ticks of the time base."
    with av.open(str(path), 'w') as out:
        v = out.add_stream(codec, rate=rate)
        frames = list(scenes(n, **size))
        v.width, v.height, v.pix_fmt = frames[0].shape[1], frames[0].shape[0], pix_fmt
        v.codec_context.time_base = base or Fraction(1, rate)
        if full: v.codec_context.color_range = 2
        v.options = dict(crf='10', g='12') if 'x26' in codec else {}
        a = out.add_stream('aac', rate=48000) if sound else None
        if sound: a.layout = 'stereo'
        if subtitles:
            text = Path(f'{path}.srt')
            text.write_text(''.join(f'{k + 1}\n00:00:00,{k}00 --> 00:00:00,{k}90\nWords {k}\n\n' for k in range(8)))
            words = av.open(str(text))
            spoken = out.add_stream_from_template(words.streams[0])
        for i, y in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(y, 'gray').reformat(format=pix_fmt, src_color_range=2, dst_color_range=2 if full else 1)
            frame.pts, frame.time_base = (times[i] if times else i), v.codec_context.time_base
            out.mux(v.encode(frame))
        out.mux(v.encode(None))
        if sound:
            t = np.arange(int(48000 * n / rate))
            wave = (np.sin(t * .05) * 9000).astype(np.int16)
            for i in range(0, len(wave) - 1024, 1024):
                s = av.AudioFrame.from_ndarray(np.repeat(wave[i:i + 1024], 2)[None], 's16', 'stereo')
                s.sample_rate, s.pts = 48000, i
                out.mux(a.encode(s))
            out.mux(a.encode(None))
        for p in words.demux() if subtitles else ():
            if not p.size: continue
            p.stream = spoken
            out.mux(p)
    return path


def shown(path):
    "(time, luma plane) of every frame."
    with av.open(str(path)) as film:
        for f in film.decode(video=0):
            plane = f.planes[0]
            dtype = np.uint8 if f.format.components[0].bits == 8 else np.uint16
            yield f.pts * f.time_base, np.frombuffer(plane, dtype).reshape(f.height, -1)[:, :f.width].copy(), f


def packets(path, kind):
    with av.open(str(path)) as film:
        streams = [s for s in film.streams if s.type == kind]
        return [(bytes(p), p.pts * p.time_base) for p in film.demux(streams) if p.size] if streams else []


@pytest.mark.parametrize('name', ['a.mp4', 'b.mkv', 'c.mov', "d with 'quotes' and ü.MP4"])
def test_same_frames_times_luma_and_sound(tmp_path, name):
    src = clip(tmp_path/name, subtitles=name == 'b.mkv')
    out = colorize_video(colorizer(), src, tmp_path/f'out{src.suffix}', Film(crf=0), progress=False)
    before, after = list(shown(src)), list(shown(tmp_path/f'out{src.suffix}'))
    assert out['frames'] == len(before) == len(after) == 40
    assert [t for t, _, _ in before] == [t for t, _, _ in after]
    assert all(np.array_equal(a, b) for (_, a, _), (_, b, _) in zip(before, after))      # crf 0 is lossless: luma bit for bit
    assert packets(src, 'audio') == packets(tmp_path/f'out{src.suffix}', 'audio') != []
    assert packets(src, 'subtitle') == packets(tmp_path/f'out{src.suffix}', 'subtitle') and bool(packets(src, 'subtitle')) == (name == 'b.mkv')
    rgb = after[20][2].to_ndarray(format='rgb24').astype(int)
    assert rgb[..., 0].mean() > rgb[..., 2].mean() + 20                                # and it has colours
    assert not list(tmp_path.glob('.*'))


def test_frames_of_any_length_keep_their_times(tmp_path):
    times = np.cumsum(np.random.default_rng(1).integers(20, 400, 30)).tolist()
    src = clip(tmp_path/'vfr.mkv', 30, times, base=Fraction(1, 1000))
    colorize_video(colorizer(), src, tmp_path/'out.mkv', progress=False)
    assert [t for t, _, _ in shown(src)] == [t for t, _, _ in shown(tmp_path/'out.mkv')]
    late = clip(tmp_path/'late.mp4', 30, [t + 5000 for t in times], base=Fraction(1, 1000), sound=False)
    colorize_video(colorizer(), late, tmp_path/'out.mp4', progress=False)
    assert [t for t, _, _ in shown(late)] == [t for t, _, _ in shown(tmp_path/'out.mp4')]


@pytest.mark.parametrize('options', [dict(full=True), dict(pix_fmt='yuv420p10le'), dict(pix_fmt='yuv444p', w=127, h=95), dict(codec='ffv1', pix_fmt='gray'),
                                     dict(codec='mpeg4'), dict(pix_fmt='yuv422p')], ids=str)
def test_range_depth_and_odd_sizes(tmp_path, options):
    src = clip(tmp_path/'in.mkv', 8, sound=False, **options)
    colorize_video(colorizer(), src, tmp_path/'out.mkv', Film(crf=0) if options.get('pix_fmt') in (None, 'yuv422p', 'gray') else Film(codec='ffv1'), progress=False)
    before, after = list(shown(src)), list(shown(tmp_path/'out.mkv'))
    assert len(before) == len(after) and all(np.array_equal(a[1], b[1]) for a, b in zip(before, after))
    assert after[0][2].color_range == (2 if options.get('full') or options.get('pix_fmt') == 'gray' else 1)


def turned(path):
    "Note in an MP4's header that it lies on its side (ISO 14496-12, 8.3.2: the matrix of the track header)."
    data = bytearray(path.read_bytes())
    at = data.index(b'tkhd') + 4 + 40
    one = 1 << 16
    data[at:at + 36] = b''.join(v.to_bytes(4, 'big', signed=True) for v in (0, one, 0, -one, 0, 0, 0, 0, 1 << 30))
    path.write_bytes(data)


def test_rotation(tmp_path):
    src = clip(tmp_path/'phone.mp4', 6, sound=False)
    turned(src)
    quarter = next(av.open(str(src)).decode(video=0)).rotation
    assert abs(quarter) == 90
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(crf=0), progress=False)
    before, after = next(shown(src)), next(shown(tmp_path/'out.mp4'))
    assert after[2].rotation == 0 and after[1].shape == before[1].shape[::-1]
    assert np.array_equal(after[1], np.rot90(before[1], quarter // 90))


def test_part_of_a_film(tmp_path):
    src = clip(tmp_path/'in.mp4', 50)
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(start=.8, end=1.4), progress=False)
    times = [t for t, _, _ in shown(tmp_path/'out.mp4')]
    assert len(times) == 15 and times[0] == 0 and float(times[-1]) == pytest.approx(.56)
    sound = packets(tmp_path/'out.mp4', 'audio')
    assert .5 < float(sound[-1][1]) < .65 and {d for d, _ in sound} < {d for d, _ in packets(src, 'audio')}


def test_colours_are_steady_and_cuts_are_cuts(tmp_path):
    for noise in (0, 5):
        src = clip(tmp_path/f'{noise}.mp4', 60, sound=False, noise=noise)
        before, after = colorize_video(colorizer(), src, tmp_path/'out.mp4', progress=False)['flicker']
        assert after < before / 2 and before > 1, (noise, before, after)
    same = colorize_video(colorizer(), src, tmp_path/'raw.mp4', Film(steady=False), progress=False)
    assert same['frames'] == 60


CHILD = '''
import sys; sys.path.insert(0, {tests!r})
import test_video, deoldify_lite.video as v
v.SEGMENT = 8
v.colorize_video(test_video.colorizer(), 'in.mp4', 'out.mp4', progress=False)
'''


def test_kill_and_run_again(tmp_path, monkeypatch):
    "kill -9 midway, then the same command: finished segments are kept, and the frames are those of a run never interrupted."
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    monkeypatch.chdir(tmp_path)
    clip(tmp_path/'in.mp4', 60)
    colorize_video(colorizer(), 'in.mp4', 'whole.mp4', progress=False)
    child = subprocess.Popen([sys.executable, '-c', CHILD.format(tests=os.path.dirname(__file__))], cwd=tmp_path)
    third = tmp_path/'.out.mp4.parts'/'00002.npz'
    deadline = time.time() + 120
    while not third.exists() and time.time() < deadline: time.sleep(.005)
    child.kill()
    child.wait()
    assert third.exists() and not (tmp_path/'out.mp4').exists()
    stamp = third.stat().st_mtime_ns
    seen = []
    real = os.replace
    monkeypatch.setattr(os, 'replace', lambda a, b: (seen.append((Path(b).name, third.stat().st_mtime_ns if third.exists() else 0)), real(a, b))[1])
    colorize_video(colorizer(), 'in.mp4', 'out.mp4', progress=False)
    assert '00000.npz' not in [name for name, _ in seen] and all(s == stamp for _, s in seen[:-1])
    for (t, a, f), (u, b, g) in zip(shown('whole.mp4'), shown('out.mp4'), strict=True):
        assert t == u and np.array_equal(f.to_ndarray(format='yuv420p'), g.to_ndarray(format='yuv420p'))
    assert not list(tmp_path.glob('.*'))


def test_another_plan_starts_afresh(tmp_path, monkeypatch):
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    src = clip(tmp_path/'in.mp4', 24, sound=False)
    calls = []
    def stops(x):
        calls.append(1)
        if len(calls) > 3: raise KeyboardInterrupt
        return flickering(x)
    with pytest.raises(KeyboardInterrupt): colorize_video(Colorizer(None, 64, name='a', run=stops), src, tmp_path/'out.mp4', progress=False)
    assert (tmp_path/'.out.mp4.parts'/'00000.npz').exists()
    out = colorize_video(Colorizer(None, 64, name='b', run=lambda x: x), src, tmp_path/'out.mp4', progress=False)
    assert out['frames'] == 24 and out['flicker'][0] < .5                 # no segment of the other model is in it


def test_memory_is_flat(tmp_path):
    resident = lambda: int(Path('/proc/self/status').read_text().split('VmRSS:')[1].split()[0]) / 1024
    if not Path('/proc/self/status').exists(): pytest.skip('needs /proc')
    src = clip(tmp_path/'long.mp4', 1000, sound=False, w=64, h=48)
    memory = []
    def watched(x): memory.append(resident()); return x  # noqa: E702
    colorize_video(Colorizer(None, 32, name='w', run=watched), src, tmp_path/'out.mp4', progress=False)
    assert len(memory) == 250 and memory[-1] - memory[50] < 20, memory[::25]       # MiB


def test_mistakes(tmp_path):
    src = clip(tmp_path/'in.mp4', 10)
    (tmp_path/'page.mp4').write_text('<html>')
    (tmp_path/'cut.mp4').write_bytes(src.read_bytes()[:2000])
    good = Film()
    for name, dst, film, says in [('none.mp4', 'o.mp4', good, 'no file'), ('page.mp4', 'o.mp4', good, 'cannot be read as a film'),
                                  ('cut.mp4', 'o.mp4', good, 'film'), ('in.mp4', 'in.mp4', good, 'is the film itself'),
                                  ('in.mp4', 'o.doc', good, 'no way to write'), ('in.mp4', 'o.mp4', Film(codec='nonsense'), "no encoder 'nonsense'"),
                                  ('in.mp4', 'o.mp4', Film(start=100), 'has no frames between'), ('in.mp4', 'o.webm', good, 'cannot hold')]:
        with pytest.raises(UserError, match=says): colorize_video(colorizer(), tmp_path/name, tmp_path/dst, film, progress=False)
        assert not (tmp_path/'o.mp4').exists()
    clip(tmp_path/'words.mkv', 10, subtitles=True)
    with pytest.raises(UserError, match='choose .mkv'): colorize_video(colorizer(), tmp_path/'words.mkv', tmp_path/'o.mp4', progress=False)
    fails('There is no file', 'video', src, '-o', tmp_path/'o.mp4', '--model', 'none.safetensors', cwd=tmp_path)

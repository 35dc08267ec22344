"""Films: same frames, same times, same sound; steady colours; and `kill -9` costs nothing that was done."""
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from tqdm.auto import tqdm
from test_cli import fails, run

from deoldify_lite.cli import main
from deoldify_lite.colorizer import NEED, Colorizer
from deoldify_lite.core import UserError
from deoldify_lite.photos import sample_photos
from deoldify_lite.frames import film_length
from deoldify_lite.steady import carry, flow
from deoldify_lite.service import Busy, Limits, Service
from deoldify_lite import video
from deoldify_lite.video import Film, _trial, colorize_video

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


def clip(path, n=40, times=None, sound=True, subtitles=False, codec='libx264', pix_fmt='yuv420p', full=False, rate=25, base=None, fields=0, space=0, **size):
    "Make a film of `scenes`; frame `i` at `times[i]` ticks of the time base."
    with av.open(str(path), 'w') as out:
        v = out.add_stream(codec, rate=rate)
        frames = list(scenes(n, **size))
        v.width, v.height, v.pix_fmt = frames[0].shape[1], frames[0].shape[0], pix_fmt
        v.codec_context.time_base = base or Fraction(1, rate)
        if full: v.codec_context.color_range = 2
        if space: v.codec_context.colorspace = space
        v.options = dict(crf='10', g='12') if 'x26' in codec else {}
        if fields: v.options = v.options | {'x264-params': 'bff=1' if fields == 3 else 'tff=1'}
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


def test_every_sound_is_kept(tmp_path):
    one, other = clip(tmp_path/'a.mp4', 20), clip(tmp_path/'b.mp4', 20, rate=24)
    with av.open(str(one)) as a, av.open(str(other)) as b, av.open(str(tmp_path/'in.mkv'), 'w') as out:
        both = [s for film in (a, b) for s in film.streams if s.type == 'audio' or film is a]
        new = {s: out.add_stream_from_template(s) for s in both}
        for s, language in zip([s for s in both if s.type == 'audio'], ('eng', 'fra')): new[s].metadata['language'] = language
        for film in a, b:
            for p in film.demux([s for s in both if s.container is film]):
                if not p.size: continue
                p.stream = new[p.stream]
                out.mux(p)
    colorize_video(colorizer(), tmp_path/'in.mkv', tmp_path/'out.mp4', progress=False)
    with av.open(str(tmp_path/'out.mp4')) as made: assert [s.metadata['language'] for s in made.streams.audio] == ['eng', 'fra']
    before, after = [sorted(p for p, _ in packets(tmp_path/f, 'audio')) for f in ('in.mkv', 'out.mp4')]
    assert before == after and len(before) > len(packets(one, 'audio')) > 0


def again(src, dst, later=0, **said):
    "The packets of a film in another file, so many seconds later; what is `said` of each kind of stream is noted."
    with av.open(str(src)) as film, av.open(str(dst), 'w') as out:
        streams = {s: out.add_stream_from_template(s) for s in film.streams}
        for s, new in streams.items():
            new.metadata.update(said.get(s.type, {}))
            if s.type in said: new.disposition = av.stream.Disposition.forced.value
        if 'chapters' in said: out.set_chapters(said['chapters'])
        for p in film.demux():
            if p.dts is None: continue
            p.stream, ticks = streams[p.stream], round(later / p.time_base)
            p.pts, p.dts = p.pts + ticks, p.dts + ticks
            out.mux(p)
    return dst


def damaged(src, dst, which):
    "A copy of a film in which the packets `which` of its pictures are noise."
    data = bytearray(src.read_bytes())
    with av.open(str(src)) as film: found = [bytes(p) for p in film.demux(video=0) if p.size]
    for i in which:
        at = data.index(found[i])
        data[at:at + len(found[i])] = b'\xff' * len(found[i])
    dst.write_bytes(data)
    return dst


def never(x): raise AssertionError('the network was asked')


@pytest.mark.parametrize('name', ['a.mp4', 'b.mkv', 'c.mov', 'e.3gp', 'f.f4v', "d with 'quotes' and ü.MP4"])
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


def lay(path, a, b, c, d):
    "Note in an MP4's header how it lies (ISO 14496-12, 8.3.2, the matrix of the track header: x, y is shown at ax + cy, bx + dy)."
    data = bytearray(path.read_bytes())
    at = data.index(b'tkhd') + 4 + 40
    one = 1 << 16
    data[at:at + 36] = b''.join(v.to_bytes(4, 'big', signed=True) for v in (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30))
    path.write_bytes(data)


@pytest.mark.parametrize('a,b,c,d', [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)], ids=str)
def test_turned_and_mirrored_films_come_out_upright(tmp_path, a, b, c, d):
    src = clip(tmp_path/'phone.mp4', 3, sound=False)
    before = next(shown(src))[1]
    lay(src, a, b, c, d)
    y, x = np.mgrid[:before.shape[0], :before.shape[1]]
    places = [p - p.min() for p in (b * x + d * y, a * x + c * y)]
    upright = np.zeros([p.max() + 1 for p in places], before.dtype)
    upright[tuple(places)] = before
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(crf=0), progress=False)
    after = next(shown(tmp_path/'out.mp4'))
    assert np.array_equal(after[1], upright) and after[2].side_data.get('DISPLAYMATRIX') is None


def test_encoders_without_a_constant_quality_do_their_best(tmp_path):
    src = clip(tmp_path/'in.mp4', 6, sound=False)
    for film, says in ((Film(codec='mpeg4', crf=20), "'mpeg4' has no --crf"), (Film(codec='h26x'), 'no encoder'),
                       (Film(codec='prores_ks'), 'prores_ks does not take these pictures'), (Film(end=float('inf')), 'from and to a second, not 0.0 to inf')):
        with pytest.raises(UserError, match=says): colorize_video(colorizer(), src, tmp_path/'out.mov', film, progress=False)
    assert [f.name for f in tmp_path.iterdir()] == ['in.mp4']
    for codec in 'h264', 'libx264': colorize_video(colorizer(), src, tmp_path/f'{codec}.mkv', Film(codec=codec, crf=20), progress=False)
    assert [f.to_ndarray().tobytes() for _, _, f in shown(tmp_path/'h264.mkv')] == [f.to_ndarray().tobytes() for _, _, f in shown(tmp_path/'libx264.mkv')]
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(codec='mpeg4'), progress=False)
    off = [np.abs(a.astype(int) - b).mean() for (_, a, _), (_, b, _) in zip(shown(src), shown(tmp_path/'out.mp4'))]
    assert len(off) == 6 and max(off) < 3                                # with the bits that FFmpeg gives it, nearly 5


def test_progress_says_how_much_is_left(tmp_path, monkeypatch):
    clip(tmp_path/'in.mp4', 30)
    screen = io.StringIO()
    monkeypatch.setattr(video, 'tqdm', lambda **options: tqdm(**options | dict(file=screen, disable=False)))
    colorize_video(colorizer(), tmp_path/'in.mp4', tmp_path/'out.mp4')
    assert re.search(r'100%.* 30/30 \[\d\d:\d\d<\d\d:\d\d, .* frames', screen.getvalue())


def test_part_of_a_film(tmp_path):
    src = clip(tmp_path/'in.mp4', 50)
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(start=.8, end=1.4), progress=False)
    times = [t for t, _, _ in shown(tmp_path/'out.mp4')]
    assert len(times) == 15 and times[0] == 0 and float(times[-1]) == pytest.approx(.56)
    sound = packets(tmp_path/'out.mp4', 'audio')
    with pytest.raises(UserError, match='no frame|no picture|nothing|ends'): colorize_video(colorizer(), src, tmp_path/'no.mp4', Film(start=1e15), progress=False)
    assert .5 < float(sound[-1][1]) < .65 and {d for d, _ in sound} < {d for d, _ in packets(src, 'audio')}


def test_seconds_count_from_the_beginning_of_the_film(tmp_path):
    "Recordings of television begin at any time."
    clip(tmp_path/'in.mkv', 50, subtitles=True, codec='ffv1')
    film = Film(start=.4, end=.8, crf=0)
    results = []
    for src in (tmp_path/'in.mkv', again(tmp_path/'in.mkv', tmp_path/'late.mkv', 36_000)):
        assert colorize_video(colorizer(), src, tmp_path/'out.mkv', film, progress=False)['frames'] == 10
        results.append([[t for t, _, _ in shown(tmp_path/'out.mkv')], packets(tmp_path/'out.mkv', 'audio'), packets(tmp_path/'out.mkv', 'subtitle')])
    assert results[0] == results[1] and results[0][0][0] == 0 and len(results[0][2]) == 4
    late = again(clip(tmp_path/'in.mp4', 50), tmp_path/'late.ts', 36_000)
    colorize_video(colorizer(), late, tmp_path/'out.mkv', film, progress=False)
    before, after = list(shown(late))[10:20], list(shown(tmp_path/'out.mkv'))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(before, after, strict=True))
    colorize_video(colorizer(), late, tmp_path/'all.mp4', progress=False)         # and nobody waits ten hours for the first frame
    times, sound = [[t for t, *_ in shown(path)] for path in (late, tmp_path/'all.mp4')], packets(tmp_path/'all.mp4', 'audio')
    assert times[1][0] < .1 and sound[0][1] < .1 and np.allclose(np.diff(times[1]).astype(float), .04)


@pytest.mark.parametrize('suffix', ['flv', 'nut'])
def test_containers_without_times_below_0(tmp_path, suffix):
    src, out = clip(tmp_path/'in.mp4', 10), tmp_path/f'out.{suffix}'
    colorize_video(colorizer(), src, out, progress=False)
    first = next(shown(out))[0]
    assert 0 <= first < .2 and first - packets(out, 'audio')[0][1] == pytest.approx(float(next(shown(src))[0] - packets(src, 'audio')[0][1]), abs=.002)


def times_of(path):
    "Seconds at which a film's pictures are shown, as far as the file itself says; nothing that PyAV guesses."
    with av.open(str(path)) as film:
        film.flags &= ~av.container.Flags.gen_pts.value
        return sorted(float((p.dts if p.pts is None else p.pts) * p.time_base) for p in film.demux(video=0) if p.size)


@pytest.mark.parametrize('name', ['a.ts', 'b.mpg'])
def test_recordings_one_behind_the_other(tmp_path, name):
    "`cat a.ts b.ts`: the clock begins anew, or is another; no frame is lost, and times go on."
    src, both = clip(tmp_path/name, 50, **(dict(codec='mpeg2video', sound=False) if name == 'b.mpg' else {})), tmp_path/f'both-{name}'
    later = again(src, tmp_path/f'later-{name}', 3700)
    for parts in ((src, src), (src, later), (later, src)):
        both.write_bytes(b''.join(p.read_bytes() for p in parts))
        assert colorize_video(colorizer(), both, tmp_path/'out.mp4', Film(crf=0), progress=False)['frames'] == 100
        before, after = list(shown(src)) * 2, list(shown(tmp_path/'out.mp4'))
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(before, after, strict=True))
        steps = np.diff([float(t) for t, *_ in after])
        assert np.allclose(np.delete(steps, 49), .04, atol=.001) and .03 < steps[49] < .15
        assert film_length(both) == pytest.approx(4, abs=.2)
        sound = packets(tmp_path/'out.mp4', 'audio')
        assert [d for d, _ in sound] == [d[7:] for d, _ in packets(src, 'audio')] * 2  # less the headers of transport streams
        if sound: assert abs(float(sound[len(sound) // 2][1] - sound[0][1] - (after[50][0] - after[0][0]))) < .002       # still together
    assert colorize_video(colorizer(), both, tmp_path/'out.mp4', Film(start=1.6, end=2.4, crf=0), progress=False)['frames'] in (18, 19, 20, 21)


def test_pictures_that_change_their_size_become_of_one(tmp_path):
    "Recordings joined together: each segment has an encoder of its own, and the film but one header."
    parts = [clip(tmp_path/f'{i}.ts', n, sound=False, w=w, h=h) for i, (n, w, h) in enumerate([(30, 128, 96), (video.SEGMENT + 20, 96, 64)])]
    (tmp_path/'in.ts').write_bytes(b''.join(p.read_bytes() for p in parts))
    with pytest.warns(UserWarning, match='all were made 128 x 96'): colorize_video(colorizer(), tmp_path/'in.ts', tmp_path/'out.mp4', Film(crf=10), progress=False)
    before, after = [[y for _, y, _ in shown(tmp_path/f)] for f in ('in.ts', 'out.mp4')]
    assert len(before) == len(after) and {y.shape for y in after} == {(96, 128)}
    for a, b in zip(before, after): assert np.abs(np.asarray(Image.fromarray(a).resize((128, 96)), float) - b).mean() < 4


def test_the_shape_of_pixels_that_only_the_container_knows_is_kept(tmp_path):
    clip(tmp_path/'square.mp4', 10)
    with av.open(str(tmp_path/'square.mp4')) as film, av.open(str(tmp_path/'in.mov'), 'w') as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        stream.sample_aspect_ratio = Fraction(16, 11)                # PAL, wide
        for p in film.demux(video=0):
            if p.dts is None: continue
            p.stream = stream
            out.mux(p)
    colorize_video(colorizer(), tmp_path/'in.mov', tmp_path/'out.mkv', progress=False)
    for f in 'in.mov', 'out.mkv':
        with av.open(str(tmp_path/f)) as film: assert film.streams.video[0].sample_aspect_ratio == Fraction(16, 11), f


def test_sound_that_steps_back_in_time_is_left_out(tmp_path, monkeypatch):
    src, real = clip(tmp_path/'in.mp4', 20), video.packets_of
    def stepping(film, streams, damage):
        for i, p in enumerate(real(film, streams, damage)):
            if p.stream.type == 'audio' and i == 6: p.pts, p.dts = p.pts - 2048, p.dts - 2048
            yield p
    monkeypatch.setattr(video, 'packets_of', stepping)
    with pytest.warns(UserWarning, match='is damaged; .*: 1'): colorize_video(colorizer(), src, tmp_path/'out.mp4', progress=False)
    assert len(packets(tmp_path/'out.mp4', 'audio')) == len(packets(src, 'audio')) - 1


@pytest.mark.parametrize('suffix', ['avi', 'wmv', 'ts', 'webm', 'mpg', 'vob', 'mxf'])
def test_other_containers_keep_frames_and_times(tmp_path, suffix):
    for src in (clip(tmp_path/'in.mp4', 20, sound=False), clip(tmp_path/'in.avi', 20, sound=False), clip(tmp_path/'old.avi', 20, sound=False, codec='mpeg4')):
        assert colorize_video(colorizer(), src, tmp_path/f'out.{suffix}', progress=False)['frames'] == 20
        times = times_of if suffix not in ('mpg', 'vob') else lambda path: [float(t) for t, *_ in shown(path)]   # those say the time of a few only
        assert np.allclose(times(tmp_path/f'out.{suffix}'), np.arange(20) * .04, rtol=0, atol=.001)
        assert colorize_video(colorizer(), src, tmp_path/f'part.{suffix}', Film(start=.4), progress=False)['frames'] == 10
        assert np.allclose(times(tmp_path/f'part.{suffix}'), np.arange(10) * .04, rtol=0, atol=.001)


def test_frames_of_any_length_are_not_for_avi(tmp_path):
    for early, network in ((0, never), (14, flickering)):                       # before the work; or where only the end is uneven, behind it
        times = [40 * i + (i * i if i >= early else 0) for i in range(20)]
        src = clip(tmp_path/'in.mkv', 20, times, base=Fraction(1, 1000), sound=False)
        with pytest.raises(UserError, match='.avi files cannot hold'):
            colorize_video(Colorizer(None, 64, run=network), src, tmp_path/'out.avi', progress=False)
        assert not (tmp_path/'out.avi').exists() and (tmp_path/'.out.avi.parts').exists() == bool(early)


@pytest.mark.parametrize('codec', ['mpeg1video', 'mpeg2video', 'mpeg4'])
def test_encoders_that_cannot_count_as_fine_as_a_film_does(tmp_path, codec):
    src = clip(tmp_path/'in.ts', 20, sound=False)                                # 90,000 ticks a second
    assert colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(codec=codec), progress=False)['frames'] == 20
    assert np.allclose(np.diff(times_of(tmp_path/'out.mp4')), .04, rtol=0, atol=.001)
    off = [np.abs(a.astype(int) - b).mean() for (_, a, _), (_, b, _) in zip(shown(src), shown(tmp_path/'out.mp4'), strict=True)]
    assert max(off) < 3


@pytest.mark.parametrize('codec, low, high', [('libx264', 0, 51), ('libx265', 0, 51), ('libvpx', 4, 63), ('libvpx-vp9', 0, 63), ('libsvtav1', 1, 63)])
def test_quality_within_what_an_encoder_knows(tmp_path, codec, low, high, capfd):
    src, sizes = clip(tmp_path/'in.mp4', 6, sound=False), []
    for crf in {low - 1, high + 1} - {-1}:
        with pytest.raises(UserError, match=f'from {low} to {high}, not {crf}'):
            colorize_video(Colorizer(None, 64, run=never), src, tmp_path/'no.mkv', Film(codec=codec, crf=crf), progress=False)
    for crf in low, 18, high:
        colorize_video(colorizer(), src, tmp_path/f'{crf}.mkv', Film(codec=codec, crf=crf), progress=False)
        sizes.append((tmp_path/f'{crf}.mkv').stat().st_size)
    assert sizes[0] > 1.2 * sizes[1] > 1.4 * sizes[2] and capfd.readouterr() == ('', '')


def test_sound_that_a_container_would_move_is_refused(tmp_path):
    "AVI files have no times of sound: what begins late, or has a gap, would be heard too early from there on."
    src = clip(tmp_path/'in.mp4', 50)
    def with_sound(name, ticks):
        with av.open(str(src)) as film, av.open(str(tmp_path/name), 'w') as out:
            streams = {s: out.add_stream_from_template(s) for s in film.streams}
            for p in film.demux():
                if p.dts is None: continue
                sound, p.stream = p.stream.type == 'audio', streams[p.stream]
                if sound: p.pts = p.dts = p.pts + ticks(p.pts)
                out.mux(p)
        return tmp_path/name
    for film, network in ((with_sound('late.mov', lambda t: 33_600), never), (with_sound('gap.mov', lambda t: 28_800 * (t > 91_200)), flickering)):
        with pytest.raises(UserError, match='.avi files cannot hold this sound at its times'):
            colorize_video(Colorizer(None, 64, run=network), film, tmp_path/f'{film.stem}.avi', progress=False)
        assert not (tmp_path/f'{film.stem}.avi').exists()
        for suffix in 'mp4', 'mkv', 'ts', 'flv': colorize_video(colorizer(), film, tmp_path/f'{film.stem}.{suffix}', progress=False, overwrite=True)
    colorize_video(colorizer(), src, tmp_path/'out.avi', progress=False)
    assert len(packets(tmp_path/'out.avi', 'audio')) == len(packets(src, 'audio'))


def flicker_of(path):
    "Mean change of chroma along the motion in the first scene of a finished film, where luma fits: as seen, whatever `Steady` says of itself."
    frames, changes = [f.to_ndarray(format='yuv444p').astype(np.float32) for _, _, f in islice(shown(path), 30)], []
    for before, now in zip(frames, frames[1:]):
        was = carry(before, flow(now[0] / 255, before[0] / 255))
        changes.append(np.abs(was - now)[1:].mean(0)[np.abs(was - now)[0] < 10].mean())
    return np.mean(changes)


def test_colours_are_steady_and_cuts_are_cuts(tmp_path):
    def colours(path): return np.array([f.to_ndarray(format='yuv444p')[1:].astype(int) for _, _, f in shown(path)])
    for noise in (0, 5):
        src = clip(tmp_path/f'{noise}.mp4', 60, sound=False, noise=noise)
        before, after = colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(crf=0), progress=False)['flicker']
        assert after < before / 2 and before > 1, (noise, before, after)
        real = colorize_video(Colorizer.load(None, 'cpu'), src, tmp_path/'real.mp4', Film(crf=0), progress=False)['flicker']
        assert real[1] < real[0] / 2 and real[0] > .2, (noise, real)               # with the released weights too; crf=0, or x264's changes count
    same = colorize_video(colorizer(), src, tmp_path/'raw.mp4', Film(crf=0, steady=False), progress=False)
    colorize_video(Colorizer.load(None, 'cpu'), src, tmp_path/'real raw.mp4', Film(crf=0, steady=False), progress=False)
    for made, raw in ('out.mp4', 'raw.mp4'), ('real.mp4', 'real raw.mp4'): assert flicker_of(tmp_path/made) < flicker_of(tmp_path/raw) / 2 > .2
    assert same['frames'] == 60 and same['flicker'] == (0, 0)
    steady, raw = colours(tmp_path/'out.mp4'), colours(tmp_path/'raw.mp4')
    changes = lambda frames: np.abs(np.diff(frames[:30].mean((2, 3)), axis=0)).mean()
    assert changes(steady) < changes(raw) / 2                                    # as the network said it, each frame by itself
    apart = np.abs(steady - raw).max((1, 2, 3))
    assert apart[30] == 0 and apart[29] > 5 and apart[35] > 5                      # at the cut nothing is left of the scene before


CHILD = '''
import os, signal, sys; sys.path.insert(0, {tests!r})
import test_video, deoldify_lite.video as v
v.SEGMENT = 8
def dies(x):
    if os.path.exists('.out.mp4.parts/00003.nut'): os.kill(os.getpid(), signal.SIGKILL)
    return test_video.flickering(x)
v.colorize_video(test_video.Colorizer(None, 64, name='flickering', run=dies), 'in.mp4', 'out.mp4', progress=False)
'''


def test_kill_and_run_again(tmp_path, monkeypatch):
    "kill -9 midway, then the same command: finished segments are kept, and the frames are those of a run never interrupted."
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    monkeypatch.chdir(tmp_path)
    clip(tmp_path/'in.mp4', 60, w=160)                                     # no multiple of 128: x264 with AVX-512 does not repeat itself there
    colorize_video(colorizer(), 'in.mp4', 'whole.mp4', progress=False)
    child = subprocess.run([sys.executable, '-c', CHILD.format(tests=os.path.dirname(__file__))], cwd=tmp_path)
    third = tmp_path/'.out.mp4.parts'/'00002.nut'
    assert child.returncode == -signal.SIGKILL and third.exists() and not (tmp_path/'out.mp4').exists()
    stamp = third.stat().st_mtime_ns
    seen = []
    real = os.replace
    monkeypatch.setattr(os, 'replace', lambda a, b: (seen.append((Path(b).name, third.stat().st_mtime_ns if third.exists() else 0)), real(a, b))[1])
    colorize_video(colorizer(), 'in.mp4', 'out.mp4', progress=False)
    assert '00000.nut' not in [name for name, _ in seen] and all(s == stamp for _, s in seen[:-1])
    for (t, a, f), (u, b, g) in zip(shown('whole.mp4'), shown('out.mp4'), strict=True):
        assert t == u and np.array_equal(f.to_ndarray(format='yuv420p'), g.to_ndarray(format='yuv420p'))
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('name, kept', [('state.npz', 0), ('state.npz', 500), ('00001.nut', 500), ('00000.nut', None), ('plan.json', 0), ('side.json', 0)])
def test_damaged_parts_are_not_gone_on_with(tmp_path, monkeypatch, name, kept):
    "Of a file the first bytes are `kept`, or nothing."
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    src, parts, calls = clip(tmp_path/'in.mp4', 30, sound=False), tmp_path/'.out.mp4.parts', []
    def stops(x):
        calls.append(1)
        if len(calls) > 4: raise KeyboardInterrupt
        return flickering(x)
    with pytest.raises(KeyboardInterrupt): colorize_video(Colorizer(None, 64, name='a', run=stops), src, tmp_path/'out.mp4', progress=False)
    if kept is None: (parts/name).unlink()
    else: (parts/name).write_bytes((parts/name).read_bytes()[:kept])
    with pytest.raises(UserError, match=rf'{name} is damaged: delete .*\.out\.mp4\.parts, and run'):
        colorize_video(Colorizer(None, 64, name='a', run=never), src, tmp_path/'out.mp4', progress=False)
    assert not (tmp_path/'out.mp4').exists()
    shutil.rmtree(parts)
    assert colorize_video(Colorizer(None, 64, name='a', run=flickering), src, tmp_path/'out.mp4', progress=False)['frames'] == 30


def test_films_beyond_the_limits(tmp_path):
    service = Service(dict(a=colorizer()), Limits(seconds=1, pixels=128 * 96))
    ask = lambda n, **size: service.film(clip(tmp_path/'in.mp4', n, sound=False, **size), tmp_path/'out.mp4')
    with pytest.raises(UserError, match='2 s long; at most 1 s'): ask(50)
    with pytest.raises(UserError, match='49,152 pixels a frame; at most 12,288'): ask(4, w=256, h=192)
    parts = [clip(tmp_path/f'{w}.ts', 12, sound=False, w=w, h=w * 3 // 4) for w in (128, 256)]                      # the first frames are small
    (tmp_path/'both.ts').write_bytes(b''.join(p.read_bytes() for p in parts))
    with pytest.raises(UserError, match='49,152 pixels a frame'): service.film(tmp_path/'both.ts', tmp_path/'out.mp4')
    shutil.rmtree(tmp_path/'.out.mp4.parts', ignore_errors=True)
    with service.films, pytest.raises(Busy, match='Another film'): ask(4)
    assert ask(4)['frames'] == 4


def test_films_say_where_their_colours_are_from(tmp_path):
    src, plain, marked = clip(tmp_path/'in.mp4', 6, sound=False), tmp_path/'plain.mkv', tmp_path/'marked.mkv'
    for dst, label in ((plain, False), (marked, True)): colorize_video(colorizer(), src, dst, Film(crf=0, label=label), progress=False)
    pictures = []
    for path in (plain, marked):
        with av.open(str(path)) as film:
            assert 'deoldify_lite' in {k.lower(): v for k, v in film.metadata.items()}['comment']
            pictures.append(np.stack([f.to_ndarray(format='gray') for f in film.decode(video=0)]).astype(int))
    changed = np.abs(pictures[0] - pictures[1]).max(0) > 8
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 50 and rows.min() > 64 and columns.max() < 110          # the lower left corner, of every frame


def test_other_options_are_asked_about_before_anything_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    src = clip(tmp_path/'in.mp4', 24, sound=False)
    calls = []
    def stops(x):
        calls.append(1)
        if len(calls) > 3: raise KeyboardInterrupt
        return flickering(x)
    with pytest.raises(KeyboardInterrupt): colorize_video(Colorizer(None, 64, name='a', run=stops), src, tmp_path/'out.mp4', progress=False)
    assert (tmp_path/'.out.mp4.parts'/'00000.nut').exists()
    other = Colorizer(None, 64, name='a', run=lambda x: x)
    other.mark = 'other weights of the same name'
    with pytest.raises(UserError, match='begun otherwise .*weights:.*--overwrite'): colorize_video(other, src, tmp_path/'out.mp4', progress=False)
    assert (tmp_path/'.out.mp4.parts'/'00000.nut').exists()
    out = colorize_video(other, src, tmp_path/'out.mp4', progress=False, overwrite=True)
    assert out['frames'] == 24 and out['flicker'][0] < .5                 # no segment of the other model is in it


@pytest.mark.parametrize('pix_fmt', ['yuv420p', 'yuv420p10le'])
@pytest.mark.parametrize('full', [False, True])
@pytest.mark.parametrize('space, kr, kb', [(1, .2126, .0722), (5, .299, .114), (9, .2627, .0593)], ids=['709', '601', '2020'])
def test_the_colours_are_those_that_the_network_said(tmp_path, space, kr, kb, full, pix_fmt):
    "R - Y and B - Y of the new film, by the formulas of its own matrix and range (ITU-R BT.601, BT.709, BT.2020)."
    src = clip(tmp_path/'in.mp4', 3, sound=False, pix_fmt=pix_fmt, full=full, space=space)
    def orange(x):
        x = x.copy()
        x[:, 0] += .1 / .229                                              # of 1, before ImageNet's normalization
        x[:, 2] -= .2 / .225
        return x
    colorize_video(Colorizer(None, 64, run=orange), src, tmp_path/'out.mp4', Film(crf=0, steady=False), progress=False)
    red, blue = .1 - .299 * .1 + .114 * .2, -.2 - .299 * .1 + .114 * .2   # less what the luma of both moved
    with av.open(str(tmp_path/'out.mp4')) as film: frames = list(film.decode(video=0))
    assert len(frames) == 3 and frames[0].format.name.replace('yuvj', 'yuv') == pix_fmt
    for f in frames:
        assert (int(f.colorspace), f.color_range) == (space, 2 if full else 1)
        depth = 1 if pix_fmt == 'yuv420p' else 4
        planes = [np.frombuffer(p, np.uint8 if depth == 1 else '<u2').reshape(p.height, -1)[:, :p.width] / depth for p in f.planes]
        y = planes[0] if full else (planes[0] - 16) * 255 / 219
        cb, cr = [(p - 128) * (1 if full else 255 / 224) for p in planes[1:]]
        mid = (y[::2, ::2] > 80) & (y[::2, ::2] < 150)                    # where no colour leaves the gamut
        assert mid.sum() > 100
        for got, want in ((cr * 2 * (1 - kr), red), (cb * 2 * (1 - kb), blue)): assert abs(np.median(got[mid]) - 255 * want) < 2.5


def test_a_film_keeps_its_size_when_memory_falls(tmp_path, monkeypatch):
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 8)
    src, sizes, free = clip(tmp_path/'in.mp4', 24, sound=False), [], [1e12]
    monkeypatch.setattr('deoldify_lite.colorizer.free_memory', lambda device: free[0])
    def network(x):
        sizes.append(x.shape[-1])
        free[0] = NEED * 32**2 / .8                                       # from now on there is room for half the side
        if len(sizes) == 3: raise KeyboardInterrupt
        return flickering(x)
    with pytest.raises(KeyboardInterrupt): colorize_video(Colorizer(None, 64, run=network), src, tmp_path/'out.mp4', progress=False)
    assert colorize_video(Colorizer(None, 64, run=network), src, tmp_path/'out.mp4', progress=False)['frames'] == 24
    assert len(sizes) > 6 and set(sizes) == {64}
    def full(x): raise MemoryError
    with pytest.raises(UserError, match='memory .* goes on'): colorize_video(Colorizer(None, 32, run=full), src, tmp_path/'o.mp4', progress=False)


def test_a_grey_film_is_no_silent_success(tmp_path, monkeypatch):
    src = clip(tmp_path/'in.mp4', 8, sound=False)
    def grey(*args): return Colorizer(None, 64, run=lambda x: x)
    def stops(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(Colorizer, 'load', grey)
        m.setattr(sys, 'argv', ['deoldify-lite', 'video', str(src), '-o', str(tmp_path/'cli.mp4'), '--overwrite'])
        with pytest.raises(SystemExit, match='cli.mp4 came out nearly grey'): main()
        sys.argv.append('--allow-grey')
        with pytest.raises(SystemExit) as end: main()
        assert not end.value.code and (tmp_path/'cli.mp4').exists()
    with monkeypatch.context() as m:                                     # nor where it was interrupted behind its last frame
        m.setattr(video, '_join', stops)
        with pytest.raises(KeyboardInterrupt): colorize_video(grey(), src, tmp_path/'a.mp4', progress=False)
    assert colorize_video(grey(), src, tmp_path/'a.mp4', progress=False)['pale']
    tint = Colorizer(None, 64, run=lambda x: x + np.array([.07, 0, 0], np.float32)[:, None, None])         # 0.008 in the mean
    for network in Colorizer(None, 64, run=lambda x: x), tint:
        assert colorize_video(network, src, tmp_path/'a.mp4', progress=False, overwrite=True)['pale']
    for network, saturation in (colorizer(), 1.), (tint, 1.5), (Colorizer(None, 64, run=lambda x: x), 0.):        # the last is asked for
        assert not colorize_video(network, src, tmp_path/'b.mp4', Film(saturation=saturation), progress=False, overwrite=True)['pale']


@pytest.mark.parametrize('name', ['b.avi', 'c.h264', 'd.ts'])
def test_going_on_where_times_or_key_frames_are_missing(tmp_path, monkeypatch, name):
    "AVI files know no times of showing, bare H.264 none at all, and transport streams not where their key frames are."
    monkeypatch.setattr('deoldify_lite.video.SEGMENT', 4)
    src, calls = clip(tmp_path/name, 30, sound=False), []
    whole, parts = tmp_path/'whole.mkv', tmp_path/'parts.mkv'
    assert colorize_video(colorizer(), src, whole, Film(crf=0), progress=False)['frames'] == 30
    def stops(x):
        calls.append(1)
        if len(calls) % 3 == 0: raise KeyboardInterrupt
        return flickering(x)
    for _ in range(10):
        try: made = colorize_video(Colorizer(None, 64, name='flickering', run=stops), src, parts, Film(crf=0), progress=False)
        except KeyboardInterrupt: continue
        break
    assert made['frames'] == 30 and len(calls) > 10
    a, b = list(shown(whole)), list(shown(parts))
    with av.open(str(src)) as film: before = [np.array(f.to_ndarray()[:f.height]) for f in film.decode(video=0)]
    assert all(t == u and np.array_equal(f.to_ndarray(), g.to_ndarray()) for (t, _, f), (u, _, g) in zip(a, b, strict=True))
    assert all(np.array_equal(x, y) for x, (_, y, _) in zip(before, a, strict=True))
    assert film_length(src) >= .5                                        # and none of them passes for a short film
    assert {round(float(u - t), 3) for (t, _, _), (u, _, _) in zip(a, a[1:])} == {.04}


def test_one_process_at_a_time(tmp_path):
    src = clip(tmp_path/'in.mp4', 4, sound=False)
    folder = tmp_path/'.out.mp4.parts'
    folder.mkdir()
    with FileLock(folder/'.lock'), pytest.raises(UserError, match='Another process is making'):
        colorize_video(Colorizer(None, 64, run=never), src, tmp_path/'out.mp4', progress=False)
    colorize_video(colorizer(), src, tmp_path/'out.mp4', progress=False)


def test_damage_is_left_out(tmp_path):
    src = clip(tmp_path/'in.mkv', 20, codec='mjpeg', pix_fmt='yuvj420p', full=True)
    with pytest.warns(UserWarning, match='is damaged; .*: 3'):
        out = colorize_video(colorizer(), damaged(src, tmp_path/'bad.mkv', [0, 7, 19]), tmp_path/'out.mkv', Film(crf=0), progress=False)
    before, after = [[(t, y.tobytes()) for t, y, _ in shown(path)] for path in (src, tmp_path/'out.mkv')]
    assert out['frames'] == 17 and after == before[1:7] + before[8:19]
    assert packets(src, 'audio') == packets(tmp_path/'out.mkv', 'audio')
    sound = bytearray(clip(tmp_path/'in.ts', 20).read_bytes())
    at = [i for i in range(len(sound)) if sound[i:i + 3] == b'\xff\xf1L'][5]                 # the header of a packet of sound
    sound[at:at + 3] = bytes(3)
    (tmp_path/'bad.ts').write_bytes(sound)
    with pytest.warns(UserWarning, match='is damaged'): out = colorize_video(colorizer(), tmp_path/'bad.ts', tmp_path/'out.mp4', progress=False)
    assert out['frames'] == 20 and 0 < len(packets(tmp_path/'out.mp4', 'audio')) < len(packets(tmp_path/'in.ts', 'audio'))
    words = clip(tmp_path/'words.mkv', 4, subtitles=True)
    (tmp_path/'odd.mkv').write_bytes(words.read_bytes().replace(b'S_TEXT/UTF8', b'S_TEXT/ODD!'))
    with pytest.warns(UserWarning, match='is neither these pictures nor sound nor subtitles that we know, and is left out'):
        colorize_video(colorizer(), tmp_path/'odd.mkv', tmp_path/'out.mkv', progress=False)
    assert packets(tmp_path/'out.mkv', 'audio') and not packets(tmp_path/'out.mkv', 'subtitle')
    (tmp_path/'short.mkv').write_bytes(src.read_bytes()[:src.stat().st_size // 2])           # a copy that broke off
    assert 5 < colorize_video(colorizer(), tmp_path/'short.mkv', tmp_path/'out.mkv', progress=False)['frames'] < 15
    with pytest.raises(UserError, match='has no frames'):
        colorize_video(colorizer(), damaged(src, tmp_path/'bad.mkv', range(20)), tmp_path/'out.mkv', progress=False)


def test_a_result_that_reads_wrong_is_none(tmp_path, monkeypatch):
    "What was made is read again before it takes its name and its segments are thrown away; they go on where they are renamed to."
    src, add, short = clip(tmp_path/'in.mp4', 20), video._picture_packets, []
    monkeypatch.setattr(video, '_picture_packets', lambda parts, times, stream: islice(add(parts, times, stream), len(times) - len(short)))
    short.append('the last')
    with pytest.raises(UserError, match='.mov files cannot hold'): colorize_video(Colorizer(None, 64, run=never), src, tmp_path/'o.mov', progress=False)
    assert not list(tmp_path.glob('*o.mov*'))                                # refused before the work
    def late(x): short[:] = ['the last']; return flickering(x)  # noqa: E702
    short.clear()
    with pytest.raises(UserError, match='.mov files cannot hold .* The work is kept: rename'):
        colorize_video(Colorizer(None, 64, name='a', run=late), src, tmp_path/'o.mov', progress=False)
    assert not (tmp_path/'o.mov').exists() and (tmp_path/'.o.mov.parts'/'00000.nut').exists()
    (tmp_path/'.o.mov.parts').rename(tmp_path/'.o.mkv.parts')
    short.clear()
    assert colorize_video(Colorizer(None, 64, name='a', run=never), src, tmp_path/'o.mkv', progress=False)['frames'] == 20
    assert [t for t, *_ in shown(tmp_path/'o.mkv')] == [t for t, *_ in shown(src)] and not list(tmp_path.glob('.*'))


def test_names_chapters_and_flags_are_kept(tmp_path):
    chapters = [dict(id=i + 1, start=i * 500, end=i * 500 + 500, time_base=Fraction(1, 1000), metadata=dict(title=f'Part {i}')) for i in range(4)]
    src = again(clip(tmp_path/'in.mkv', 50, subtitles=True, codec='ffv1'), tmp_path/'said.mkv', video=dict(title='Camera'), audio=dict(language='fre', title='Son'),
                subtitle=dict(language='ger', title='Texte'), chapters=chapters)
    def said(path):
        with av.open(str(path)) as film:
            kept = [(s.type, s.language, s.metadata.get('title'), s.disposition) for s in film.streams]
            return kept, [(c['start'] * c['time_base'], c['end'] * c['time_base'], c['metadata']['title']) for c in film.chapters()]
    colorize_video(colorizer(), src, tmp_path/'out.mkv', progress=False)
    assert said(tmp_path/'out.mkv') == said(src) and {d for _, _, _, d in said(src)[0]} == {av.stream.Disposition.forced}
    colorize_video(colorizer(), src, tmp_path/'out.mkv', Film(start=.6, end=1.2), progress=False)
    part = [(float(a), float(b), name) for a, b, name in said(tmp_path/'out.mkv')[1]]
    assert part == [(0, .4, 'Part 1'), (.4, .6, 'Part 2')]


@pytest.mark.parametrize('order', [2, 3])
def test_interlaced_stays_interlaced(tmp_path, order):
    src = clip(tmp_path/'in.mp4', 6, sound=False, fields=order)
    colorize_video(colorizer(), src, tmp_path/'out.mp4', Film(crf=0), progress=False)
    with av.open(str(tmp_path/'out.mp4')) as film:
        stream = film.streams.video[0]
        assert stream.codec_context.field_order == order and next(film.decode(stream)).interlaced_frame
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(shown(src), shown(tmp_path/'out.mp4'), strict=True))


def test_memory_is_flat(tmp_path):
    resident = lambda: int(Path('/proc/self/status').read_text().split('VmRSS:')[1].split()[0]) / 1024
    if not Path('/proc/self/status').exists(): pytest.skip('needs /proc')
    src = clip(tmp_path/'long.mp4', 1000, w=256, h=192)               # 70 MiB of frames
    memory = []
    def watched(x): memory.append(resident()); return x  # noqa: E702
    colorize_video(Colorizer(None, 32, name='w', run=watched), src, tmp_path/'out.mp4', progress=False)
    assert len(memory) == 250 and memory[-1] - memory[50] < 20, memory[::25]       # MiB


def test_mistakes(tmp_path):
    src = clip(tmp_path/'in.mp4', 10)
    clip(tmp_path/'mute.mp4', 10, sound=False)
    clip(tmp_path/'words.mkv', 10, subtitles=True)
    (tmp_path/'page.mp4').write_text('<html>')
    (tmp_path/'cut.mp4').write_bytes(src.read_bytes()[:2000])
    good, ffv1 = Film(), Film(codec='ffv1')
    for name, dst, film, says in [('none.mp4', 'o.mp4', good, 'no file'), ('page.mp4', 'o.mp4', good, 'cannot be read as a film'),
                                  ('cut.mp4', 'o.mp4', good, 'film'), ('in.mp4', 'in.mp4', good, 'is the film itself'),
                                  ('in.mp4', 'o.doc', good, 'no way to write'), ('in.mp4', 'o.mp3', good, 'cannot hold'), ('in.mp4', 'o.swf', good, 'cannot hold'),
                                  *[('mute.mp4', f'o.{s}', Film(codec='libx264'), f'{s} files cannot hold these pictures .* choose') for s in ('mpg', 'vob')],
                                  ('in.mp4', 'o.mpg', good, 'mpg files cannot hold'),
                                  ('in.mp4', 'o.mp4', Film(codec='nonsense'), "no encoder 'nonsense'"),
                                  ('in.mp4', 'o.mp4', Film(codec='aac'), "no encoder 'aac'"), ('in.mp4', 'o.mp4', Film(start=100), 'has no frames between'),
                                  ('in.mp4', 'o.WEBM', good, r'cannot hold stream 1 \(audio'), ('in.mp4', 'o.mov', ffv1, r'cannot hold stream 0 \(video, ffv1\)'),
                                  ('in.mp4', 'o.mov', Film(codec='libvpx-vp9'), 'choose .mkv'), ('words.mkv', 'o.mp4', good, 'choose .mkv')]:
        with pytest.raises(UserError, match=says): colorize_video(Colorizer(None, 64, run=never), tmp_path/name, tmp_path/dst, film, progress=False)
        assert not (tmp_path/dst).exists() or name == dst
    with pytest.raises(UserError, match='is for drawings'): colorize_video(Colorizer(None, 64, run=never, whole=True), src, tmp_path/'o.mp4', progress=False)
    assert not list(tmp_path.glob('.*'))
    with pytest.raises(UserError, match='cannot be written'): colorize_video(Colorizer(None, 64, run=never), src, tmp_path/'page.mp4'/'o.mp4', progress=False)
    fails('There is no file', 'video', src, '-o', tmp_path/'o.mp4', '--model', 'none.safetensors', cwd=tmp_path)


def test_the_disk_that_a_film_needs_is_told(tmp_path, monkeypatch):
    told, made, src = [], tmp_path/'out.mp4', clip(tmp_path/'in.mp4', 100, sound=False)
    monkeypatch.setattr('deoldify_lite.video.shutil.disk_usage', lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr('deoldify_lite.video.tqdm', lambda *args, desc, **kwargs: told.append(desc) or tqdm(*args, **kwargs))
    with pytest.warns(UserWarning, match=r'out.mp4 may need 0 MiB of disk, and 0 MiB are free'): colorize_video(colorizer(), src, made, progress=False)
    assert told == ['on cpu, about 0 MiB of disk'] and made.exists()              # told, and made all the same
    with av.open(str(src)) as film: _, _, each = _trial(src, film.streams.video[0], made, Film(codec='libx264'))
    assert made.stat().st_size == pytest.approx(100 * each, rel=.3)


@pytest.mark.skipif(os.name == 'nt', reason='no such names there')
def test_names_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clip('in.mp4', 4, sound=False)
    os.rename('in.mp4', '2021-05-01T12:30.mp4')
    assert colorize_video(colorizer(), '2021-05-01T12:30.mp4', 'a:b.mp4', progress=False)['frames'] == film_length('a:b.mp4') * 25 + 1 == 4
    assert sorted(os.listdir()) == ['2021-05-01T12:30.mp4', 'a:b.mp4']


def test_a_film_that_is_there_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Colorizer, 'load', lambda *args: colorizer())
    clip(tmp_path/'in.mp4', 4, sound=False)
    command = ['video', 'in.mp4', '-o', 'out.mp4', '--saturation']
    assert '4 frames' in run(*command, '1', cwd=tmp_path).stdout
    first = (tmp_path/'out.mp4').read_bytes()
    out = run(*command, '0', cwd=tmp_path)
    assert out.returncode == 0 and '--overwrite' in out.stdout and (tmp_path/'out.mp4').read_bytes() == first
    fails('There is no file im.mp4', 'video', 'im.mp4', '-o', 'out.mp4', cwd=tmp_path)
    parts = tmp_path/'.out.mp4.parts'
    parts.mkdir()
    (parts/'state.npz').write_bytes(b'behind')
    os.utime(parts/'state.npz', (1, 1))
    run(*command, '0', cwd=tmp_path)
    assert not parts.exists()                                             # killed behind the making of the film
    parts.mkdir()
    (parts/'state.npz').write_bytes(b'before')
    run(*command, '0', cwd=tmp_path)
    assert parts.exists()                                                 # killed at another, which is begun and not done
    assert '4 frames' in run(*command, '0', '--overwrite', cwd=tmp_path).stdout and (tmp_path/'out.mp4').read_bytes() != first
    fails('is the film itself', 'video', 'in.mp4', '-o', 'in.mp4', cwd=tmp_path)
    assert '4 frames' in run('video', 'in.mp4', '-o', 'new', cwd=tmp_path).stdout and (tmp_path/'new'/'in.mp4').exists()

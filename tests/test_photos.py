"""Folders as people have them: what is kept, what is dropped and why."""
import os
import shutil
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageOps

from deoldify_lite import photos
from deoldify_lite.core import UserError
from deoldify_lite.photos import MIN_CHROMA, NO_CLASS, Manifest, check_apart, chroma_beyond_tone, find_data, load_photo, sample_photos, scan, square


@pytest.fixture(scope='module')
def real(): return [square(load_photo(f, 200), 120) for f in sorted(sample_photos().iterdir())]


def dropped(manifest): return {p.file: p.dropped for p in manifest.photos if p.dropped}


def says(words, f, *args, **kwargs):
    with pytest.raises(UserError) as e: f(*args, **kwargs)
    assert words in str(e.value) and '\n' not in str(e.value), str(e.value)


def test_samples_are_eight_real_photos():
    assert len(list(sample_photos().iterdir())) == 8
    assert all(min(load_photo(f).size) >= 300 for f in sample_photos().iterdir())


MODES = dict(RGB=lambda im: im, RGBA=lambda im: im.convert('RGBA'), P=lambda im: im.convert('P', palette=Image.Palette.ADAPTIVE),
             CMYK=lambda im: im.convert('CMYK'), YCbCr=lambda im: im.convert('YCbCr'))


@pytest.mark.parametrize('mode, kind', [('RGB', 'png'), ('RGB', 'jpg'), ('RGB', 'webp'), ('RGB', 'bmp'), ('RGB', 'tiff'), ('RGB', 'gif'),
                                        ('RGBA', 'png'), ('P', 'png'), ('CMYK', 'jpg'), ('CMYK', 'tiff'), ('YCbCr', 'jpg')])
def test_modes_and_types_come_as_the_same_colours(real, tmp_path, mode, kind):
    MODES[mode](real[0]).save(tmp_path/f'x.{kind}')
    im = load_photo(tmp_path/f'x.{kind}')
    assert im.mode == 'RGB' and np.abs(np.asarray(im, float) - np.asarray(real[0], float)).mean() < 12
    assert scan(tmp_path).counts() in ({'train': 1}, {'valid': 1})


@pytest.mark.parametrize('bits', [8, 16, 1])
def test_grey_depths_keep_their_brightness(real, tmp_path, bits):
    grey = np.asarray(real[0].convert('L'))
    im = Image.fromarray(grey if bits == 8 else grey.astype(np.uint16) * 257) if bits > 1 else real[0].convert('1')
    im.save(tmp_path/'x.png')
    read = np.asarray(load_photo(tmp_path/'x.png').convert('L'), float)
    assert abs(read.mean() - grey.mean()) < (2 if bits > 1 else 8)
    says('1 grey or sepia', scan, tmp_path)


@pytest.mark.parametrize('a, white', [(np.full((80, 80), 200, np.uint16), 65535), (np.linspace(0, 1, 6400, dtype=np.float32).reshape(80, 80), 1),
                                      (np.full((80, 80), 200, np.int32), 255), (np.full((80, 80), 40000, np.int32), 65535)])
def test_deep_grey_is_scaled_by_its_own_white(tmp_path, a, white):
    Image.fromarray(a).save(tmp_path/'x.tif')
    assert np.abs(np.asarray(load_photo(tmp_path/'x.tif'))[..., 0] - a / white * 255.).max() <= 1


@pytest.mark.parametrize('mode', ['LA', 'RGBA'])
def test_transparent_parts_are_white(tmp_path, mode):
    im = Image.new(mode, (8, 8))
    im.paste((0, 255) if mode == 'LA' else (0, 0, 0, 255), (0, 0, 4, 8))
    im.save(tmp_path/'x.png')
    assert load_photo(tmp_path/'x.png').getpixel((0, 0)) == (0, 0, 0) and load_photo(tmp_path/'x.png').getpixel((7, 7)) == (255,) * 3


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp', 'tiff', 'bmp'])
def test_files_that_end_early_say_so(real, tmp_path, kind):
    real[0].save(tmp_path/f'x.{kind}')
    whole = (tmp_path/f'x.{kind}').read_bytes()
    (tmp_path/f'x.{kind}').write_bytes(whole[:len(whole) * 3 // 4])
    says('x.' + kind, load_photo, tmp_path/f'x.{kind}')
    says('1 ' + ('unreadable' if kind == 'webp' else 'truncated'), scan, tmp_path)


def test_a_photo_that_went_says_which(tmp_path): says('none.jpg is gone', load_photo, tmp_path/'none.jpg')


def test_names_that_are_no_text_do_no_harm(real, tmp_path):
    real[0].save(tmp_path/'a\nb, "c".png')
    try: real[1].save(os.fsencode(tmp_path) + b'/caf\xe9.png')
    except OSError: pytest.skip('this disk takes only UTF-8')
    m = scan(tmp_path)
    assert dropped(m) == {'caf\\xe9.png': 'not found by its name'}
    m.save(tmp_path/'photos.csv')
    again = Manifest.load(tmp_path/'photos.csv')
    again.check()
    assert again == m
    check_apart(tmp_path, sample_photos())                     # what cannot be read is not compared, and no crash


def test_films_and_documents_are_no_photos(real, tmp_path):
    real[0].save(tmp_path/'x.png')
    for name in ('film.mpg', 'text.pdf', 'drawing.eps', 'data.h5'): (tmp_path/name).write_bytes(b'%!PS')
    assert [p.file for p in scan(tmp_path).photos] == ['x.png']


def test_orientation_is_applied_once(real, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = real[0].resize((120, 80))
    wide.save(tmp_path/'x.jpg', exif=exif, quality=95)
    turned = load_photo(tmp_path/'x.jpg')
    assert turned.size == (80, 120)
    assert np.abs(np.asarray(turned, float) - np.asarray(wide.rotate(-90, expand=True), float)).mean() < 6
    photo = scan(tmp_path, valid_pct=0).photos[0]
    assert (photo.width, photo.height) == (80, 120)


def test_a_small_side_reads_no_smaller(real, tmp_path):
    sample = next(f for f in sample_photos().iterdir() if f.suffix == '.jpg')
    im = load_photo(sample, 64)
    assert 64 <= min(im.size) < min(Image.open(sample).size)
    assert min(load_photo(sample, 5000).size) == min(Image.open(sample).size)


def test_square_is_the_centre():
    im = Image.new('RGB', (300, 100), 'red')
    im.paste('blue', (100, 0, 200, 100))
    assert (np.asarray(square(im, 32))[:, 2:-2] == (0, 0, 255)).all()


def test_every_reason_to_drop(real, tmp_path):
    for i, im in enumerate(real): im.save(tmp_path/f'{i}.png')
    (tmp_path/'a'/'b c').mkdir(parents=True)
    real[0].convert('L').save(tmp_path/'a'/'grey.png')
    ImageOps.colorize(real[1].convert('L'), '#2b1708', '#fff0c8').save(tmp_path/'a'/'sepia.jpg')
    ImageOps.colorize(real[2].convert('L'), '#00131f', '#e0f4ff').save(tmp_path/'a'/'blue tone.jpg', quality=70)
    real[3].resize((50, 90)).save(tmp_path/'a'/'small.png')
    (tmp_path/'a'/'broken.jpg').write_bytes(b'\xff\xd8\xff no picture')
    (tmp_path/'a'/'cut.png').write_bytes((tmp_path/'4.png').read_bytes()[:5000])
    shutil.copy(tmp_path/'5.png', tmp_path/'a'/'b c'/'"5" äø.png')
    (tmp_path/'.hidden.png').write_bytes(b'ignored')
    (tmp_path/'readme.txt').write_text('ignored')
    m = scan(tmp_path)
    assert dropped(m) == {'a/grey.png': 'grey or sepia', 'a/sepia.jpg': 'grey or sepia', 'a/blue tone.jpg': 'grey or sepia',
                          'a/small.png': 'too small', 'a/broken.jpg': 'unreadable', 'a/cut.png': 'truncated',
                          'a/b c/"5" äø.png': 'duplicate of 5.png'}
    assert sum(m.counts()[s] for s in ('train', 'valid') if s in m.counts()) == 8
    m.save(tmp_path/'photos.csv')
    assert Manifest.load(tmp_path/'photos.csv') == m
    (tmp_path/'photos.csv').write_text('root\n')
    says('is damaged', Manifest.load, tmp_path/'photos.csv')


def test_a_bomb_is_dropped_and_does_no_harm(real, tmp_path, monkeypatch):
    for i in range(2): real[i].save(tmp_path/f'{i}.png')
    Image.new('RGB', (400, 400), 'red').save(tmp_path/'bomb.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100_000)
    assert dropped(scan(tmp_path)) == {'bomb.png': 'too many pixels'}
    says('too many pixels', load_photo, tmp_path/'bomb.png')


def test_colourful_photos_of_one_hue_are_kept(real):
    "A toned photo has the colour that its luma foretells; a sunset has not."
    a = np.asarray(real[0].convert('HSV')).copy()
    for hue in (20, 100, 160):
        a[..., 0] = hue
        assert chroma_beyond_tone(Image.fromarray(a, 'HSV').convert('RGB')) > MIN_CHROMA
    assert max(chroma_beyond_tone(im.convert('L').convert('RGB')) for im in real) == 0


def test_split_follows_from_content_alone(real, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(120): Image.fromarray(rng.integers(0, 256, (70, 70, 3), dtype=np.uint8)).save(tmp_path/f'{i}.png')
    m = scan(tmp_path, valid_pct=.2, test_pct=.1)
    split = {p.hash: p.split for p in m.photos}
    n = Counter(split.values())
    assert 10 <= n['valid'] <= 40 and 3 <= n['test'] <= 25
    (tmp_path/'moved').mkdir()
    for i in range(0, 120, 2): (tmp_path/f'{i}.png').rename(tmp_path/'moved'/f'other {i}.png')
    for i in range(1, 40, 2): (tmp_path/f'{i}.png').unlink()
    again = {p.hash: p.split for p in scan(tmp_path, valid_pct=.2, test_pct=.1).photos}
    assert len(again) == 100 and all(split[h] == s for h, s in again.items())


def test_a_tiny_set_has_one_photo_to_measure_on(real, tmp_path):
    for i in range(4): real[i].save(tmp_path/f'{i}.png')
    m = scan(tmp_path, valid_pct=1e-6)
    assert m.counts() == {'train': 3, 'valid': 1}
    assert m.hashes('valid')[0] == min(p.hash for p in m.photos)


def test_changes_of_the_folder_are_named(real, tmp_path):
    for i in range(4): real[i].save(tmp_path/f'{i}.png')
    m = scan(tmp_path)
    m.check()
    real[5].save(tmp_path/'late.png')
    says('1 new, for example late.png', m.check)
    (tmp_path/'late.png').unlink()
    real[6].save(tmp_path/'2.png')
    says('1 changed, for example 2.png', m.check)
    (tmp_path/'2.png').unlink()
    says('1 gone, for example 2.png', m.check)


def test_check_is_fast(real, tmp_path):
    for i in range(2000): (tmp_path/f'{i}.png').touch()
    real[0].save(tmp_path/'real.png')
    m = scan(tmp_path)
    began = time.perf_counter()
    m.check()
    assert time.perf_counter() - began < .5


def test_an_interrupted_scan_goes_on(real, tmp_path, monkeypatch):
    folder, notes = tmp_path/'in', tmp_path/'notes'
    folder.mkdir()
    for i, im in enumerate(real): im.save(folder/f'{i:02}.png')
    (folder/'broken.png').write_text('no picture')
    whole, look, seen = scan(folder), photos._look, []
    def counted(root, file, *args):
        seen.append(file)
        if last and len(seen) == n: raise KeyboardInterrupt
        if last and len(seen) == 1: return photos.Photo(file, args[0], dropped='unreadable')   # the network drive was away
        return look(root, file, *args)
    n, last = len(real) // 2, True
    monkeypatch.setattr(photos, '_look', counted)
    with pytest.raises(KeyboardInterrupt): scan(folder, workers=1, notes=notes)
    noted = len(notes.read_text().splitlines()) - 1
    with open(notes, 'a') as f: f.write('{"file": "0')                   # and a line that was cut short
    last = False
    seen.clear()
    assert scan(folder, notes=notes) == whole and noted == n - 2 and len(seen) == len(real) + 1 - noted and not notes.exists()
    for stale in 'garbage\n{}\n', f'["{folder}", 64, 1.5]\n{{}}\n', f'["/elsewhere", 64, 1.5]\n{{"file": "00.png", "bytes": {(folder/"00.png").stat().st_size}}}\n':
        notes.write_text(stale)
        assert scan(folder, notes=notes) == whole


def test_nothing_to_learn_from(real, tmp_path):
    says('There is no folder', scan, tmp_path/'none')
    says('There is no image file', scan, tmp_path)
    for i in range(3): real[i].convert('L').save(tmp_path/f'{i}.png')
    real[3].resize((20, 20)).save(tmp_path/'s.png')
    says('(3 grey or sepia, 1 too small)', scan, tmp_path)


def test_links_in_circles_end(real, tmp_path):
    real[0].save(tmp_path/'0.png')
    os.symlink(tmp_path, tmp_path/'again')
    os.symlink('self', tmp_path/'self')
    os.symlink('self.png', tmp_path/'self.png')
    assert len(scan(tmp_path, valid_pct=0).photos) == 1


def test_samples_are_copied_once_by_many(tmp_path):
    "Notebooks and tests run in parallel; five of sixteen failed before there was a lock."
    code = 'from deoldify_lite.photos import sample_photos; assert len(list(sample_photos().iterdir())) == 8'
    runs = [subprocess.Popen([sys.executable, '-c', code], env=os.environ | {'XDG_CACHE_HOME': str(tmp_path)}) for _ in range(4)]
    assert [r.wait() for r in runs] == [0] * 4
    (tmp_path/'file').touch()
    says('set XDG_CACHE_HOME', sample_photos, tmp_path/'file'/'sample')


def test_folders_are_classes_and_splits_are_not(real, tmp_path):
    for i, place in enumerate(('train/cat', 'train/dog', 'val/cat', 'val/dog')):
        (tmp_path/'a'/place).mkdir(parents=True)
        real[i].save(tmp_path/'a'/place/'1.png')
    a = scan(tmp_path/'a', valid_pct=0, progress=False)
    assert a.classes() == ['cat', 'dog'] and sorted(a.labels('train')) == [0, 0, 1, 1]
    for i, place in enumerate(('train/unlabelled', 'train')):          # neither of them is a class
        (tmp_path/'a'/place).mkdir(exist_ok=True)
        real[4 + i].save(tmp_path/'a'/place/'2.png')
    b = scan(tmp_path/'a', valid_pct=0, progress=False)
    assert b.classes() == ['cat', 'dog'] and sorted(b.labels('train')) == [NO_CLASS] * 2 + [0, 0, 1, 1]
    assert sorted(b.labelled().labels('train')) == [0, 0, 1, 1] and sorted(b.kinds('train')) == [0, 1, 1, 2, 2, 3]
    shutil.rmtree(tmp_path/'a'/'train'/'unlabelled')
    (tmp_path/'a'/'train'/'2.png').unlink()
    (tmp_path/'a'/'val').rename(tmp_path/'a'/'boat')                 # 'train' may be a class, beside 'boat'
    assert scan(tmp_path/'a', valid_pct=0, progress=False).classes() == ['boat', 'train']


def test_names_of_data(tmp_path, monkeypatch):
    assert find_data(tmp_path) == tmp_path and find_data('sample') == sample_photos()
    monkeypatch.setenv('HOME', str(tmp_path))
    assert find_data('~') == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path/'sample').mkdir()
    assert find_data('sample') == sample_photos() != tmp_path/'sample'
    says('neither', find_data, 'mdl')                                # a name among fastai's URLs, but of no data set
    says('neither', find_data, 'imagenete')
    says('There is no folder', find_data, tmp_path/'none')
    says('Name a folder', find_data, '')                             # an empty DATA= is not the folder one is in

    def fail(*args, **kwargs): raise ConnectionError
    monkeypatch.setattr('fastai.data.external.untar_data', fail)
    says('could not be downloaded', find_data, 'imagenette_160')
    monkeypatch.setattr('fastai.data.external.untar_data', lambda url: tmp_path if url.endswith('imagenette2-160.tgz') else None)
    assert find_data('imagenette_160') == tmp_path


def test_scan_is_fast(real, tmp_path):
    "4,000 photos a minute on two cores, with room for a busy machine."
    for i in range(200): real[i % 8].rotate(i).save(tmp_path/f'{i}.jpg')
    began = time.perf_counter()
    assert len(scan(tmp_path).photos) == 200
    assert 200 / (time.perf_counter() - began) > 4000 / 60


def test_sample_photos_of_packages_that_are_not_there_are_left_out(monkeypatch):
    real, whole = photos.find_spec, photos._sample_files()
    monkeypatch.setattr(photos, 'find_spec', lambda package: None if package == 'skimage' else real(package))
    assert set(photos._sample_files()) == {n for n, f in whole.items() if 'skimage' not in f.parts} != set(whole)

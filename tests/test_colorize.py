"""Colorizing files: nothing of a photo is lost, nothing is overwritten, and every runtime gives the same answer."""
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps, IptcImagePlugin, PngImagePlugin
from test_cli import fails, run

from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import RELEASED, UserError, atomic
from deoldify_lite.doctor import check_weights
from deoldify_lite.export import export_onnx, save_generator
from deoldify_lite.files import MOST, read_photo, write_photo
from deoldify_lite.folders import Style, colorize_all, plan_jobs
from deoldify_lite.generator import generators
from deoldify_lite.photos import load_photo, sample_photos

ARGS = dict(backbone='resnet18', norm='batch', width=.25)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A small generator of random weights whose colours are strong enough to be seen, as a file."
    import torch
    torch.manual_seed(0)
    generator = generators['unet'](**ARGS).eval()
    with torch.no_grad(): generator.network.head[0].weight.mul_(8)
    path = tmp_path_factory.mktemp('model')/'small.safetensors'
    save_generator(generator, path, 'unet', ARGS, 64)
    export_onnx(generator, path.with_suffix('.onnx'), 64)
    return path


@pytest.fixture(scope='module')
def photo(): return Image.open(sample_photos()/'china.jpg').convert('RGB').resize((160, 107))


def luma(pixels): return np.asarray(Image.fromarray(pixels[..., :3]).convert('L'), int)


def kinds(photo):
    "File name -> (picture, options of its writer): every kind of pixel that a photo may come in."
    grey, alpha = photo.convert('L'), Image.linear_gradient('L').resize(photo.size)
    with_alpha = lambda im: [im.putalpha(alpha), im][1]
    cmyk = photo.convert('CMYK')
    return {
        'one bit.png': (grey.convert('1'), {}), 'grey.png': (grey, {}), 'grey alpha.png': (with_alpha(grey.convert('LA')), {}),
        'palette.png': (photo.quantize(64), {}), 'palette alpha.png': (photo.quantize(64), dict(transparency=3)), 'colour.png': (photo, {}),
        'colour alpha.png': (with_alpha(photo.convert('RGBA')), {}), 'cmyk.tif': (cmyk, {}), 'cmyk.jpg': (cmyk, {}), 'ycc.jpg': (photo, {}),
        'grey.jpg': (grey, {}), 'alpha.webp': (with_alpha(photo.convert('RGBA')), dict(lossless=True, exact=True)), 'old.bmp': (grey, {}),
        'still.gif': (grey, {}), 'with space, é.png': (grey, {}), 'UPPER.JPG': (grey, {}), 'alpha.tif': (with_alpha(photo.convert('RGBA')), {})}


def test_every_kind_of_pixel_keeps_size_alpha_and_luma(model, photo, tmp_path):
    (tmp_path/'in').mkdir()
    for name, (im, options) in kinds(photo).items(): im.save(tmp_path/'in'/name, **options)
    out = run('colorize', 'in', '-o', 'out', '--model', model, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    for name in kinds(photo):
        src = Image.open(tmp_path/'in'/name)
        path = tmp_path/'out'/(f'{name}.png' if name.endswith(('gif', 'bmp')) else name)
        dst = Image.open(path)
        pixels = np.asarray(dst)
        assert dst.size == src.size and pixels.shape[2] == (4 if 'alpha' in name else 3), name
        if 'alpha' in name: assert np.array_equal(pixels[..., 3], np.asarray(src.convert('RGBA'))[..., 3]), name
        apart = np.abs(luma(pixels) - np.asarray(src.convert('L'), int))
        if path.suffix.lower() == '.jpg': assert apart.mean() < 1, name           # JPEG rounds on its own
        else: assert apart.max() <= 1, name
        spread = (pixels[..., :3].max(-1).astype(int) - pixels[..., :3].min(-1)).mean()
        assert spread > 3 or name == 'one bit.png', name                 # and it has colours; black and white have no room for any


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_16_bits_stay_16_bits(model, photo, tmp_path, suffix):
    deep = (np.asarray(photo.convert('L'), np.uint16) * 257 + np.random.default_rng(0).integers(0, 200, (107, 160))).clip(0, 65535).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path/f'deep.{suffix}')
    assert run('colorize', f'deep.{suffix}', '-o', f'out.{suffix}', '--model', model, cwd=tmp_path).returncode == 0
    pixels = tifffile.imread(tmp_path/'out.tif') if suffix == 'tif' else cv2.imread(str(tmp_path/'out.png'), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert pixels.dtype == np.uint16 and pixels.shape == (107, 160, 3)
    assert np.abs(pixels @ np.array([.299, .587, .114]) - deep).max() <= 2    # of 65,535
    assert len(np.unique(pixels[..., 1] % 257)) > 50                        # not 8 bits in 16


def test_photos_of_phones(model, photo, tmp_path):
    heif = pytest.importorskip('pillow_heif')
    heif.from_pillow(photo).save(tmp_path/'IMG_1.HEIC', quality=90)
    out = run('colorize', 'IMG_1.HEIC', '-o', 'out', '--model', model, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    heif.register_heif_opener()
    given, made = [Image.open(next((tmp_path/where).glob('IMG_1.*'))).convert('RGB') for where in ('.', 'out')]
    assert made.size == photo.size
    assert abs(luma(np.asarray(made)) - luma(np.asarray(given))).max() <= 1
    assert abs(np.asarray(made, int) - luma(np.asarray(made))[..., None]).mean() > 1


def test_orientation_once_tags_and_profiles_kept(model, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, 'Leica', '1936:08:01 12:00:00'
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    photo.save(tmp_path/'in.jpg', exif=exif, icc_profile=icc, dpi=(300, 300))
    assert run('colorize', 'in.jpg', '-o', 'out', '--model', model, cwd=tmp_path).returncode == 0
    out = Image.open(tmp_path/'out'/'in.jpg')
    tags = out.getexif()
    assert out.size == photo.size[::-1] and 0x0112 not in tags
    assert (tags[0x010F], tags[0x0132], out.info['icc_profile'], out.info['dpi']) == ('Leica', '1936:08:01 12:00:00', icc, (300, 300))
    assert 'deoldify_lite' in tags[0x0131] and 'small' in tags[0x0131]
    turned = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path/'in.jpg')).convert('L'), int)
    assert np.abs(luma(np.asarray(out)) - turned).mean() < 1


@pytest.mark.parametrize('deep', [False, True])
def test_what_people_wrote_into_a_photo_is_kept(photo, tmp_path, deep):
    grey = photo.convert('L')
    notes = PngImagePlugin.PngInfo()
    for key, text in (('Description', 'Aunt Märy, 1931'), ('Comment', 'at the lake'), ('Software', 'other'), ('Raw profile type exif', '\nexif\n4\n00000000\n')):
        notes.add_itxt(key, text)
    notes.add(b'gAMA', struct.pack('>I', 55_000))
    (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if deep else grey).save(tmp_path/'in.png', pnginfo=notes)
    for name in 'out.png', 'out.jpg':
        page, = read_photo(tmp_path/'in.png')
        write_photo(tmp_path/name, [page], [np.dstack([page.luma] * 3)])
    with Image.open(tmp_path/'out.png') as im:
        im.load()
        assert im.text == {'Description': 'Aunt Märy, 1931', 'Comment': 'at the lake'} and im.info['gamma'] == .55
    with Image.open(tmp_path/'out.jpg') as im: assert im.info['comment'] == b'at the lake'
    page, = read_photo(tmp_path/'out.jpg')
    write_photo(tmp_path/'back.png', [page], [np.dstack([page.luma] * 3)])
    with Image.open(tmp_path/'back.png') as im:
        im.load()
        assert im.text == {'Comment': 'at the lake'} and 'gamma' not in im.info


@pytest.mark.parametrize('orientation', [2, 4, 5, 7])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_mirrored_photos_with_all_their_tags(photo, tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, 'Leica'
    exif.get_ifd(0x8769).update({0x9003: '1936:08:01 12:00:00', 0x829A: 1 / 50})
    exif.get_ifd(0x8825).update({1: 'N', 2: (52., 31., 12.5)})
    photo.convert('L').save(tmp_path/f'in.{suffix}', exif=exif, **(dict(lossless=True) if suffix == 'webp' else {}))
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/f'in.{suffix}', tmp_path/f'out.{suffix}')
    out = Image.open(tmp_path/f'out.{suffix}')
    tags = out.getexif()
    assert 0x0112 not in tags and tags[0x010F] == 'Leica' and tags.get_ifd(0x8769) == {0x9003: '1936:08:01 12:00:00', 0x829A: 1 / 50}
    assert tags.get_ifd(0x8825) == {1: 'N', 2: (52., 31., 12.5)}
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path/f'in.{suffix}')).convert('L'), int)
    assert np.abs(np.asarray(out.convert('L'), int) - upright).max() <= (8 if suffix == 'jpg' else 1)


@pytest.mark.parametrize('bits', [8, 16])
def test_a_tiff_takes_what_it_can_hold(photo, tmp_path, bits):
    exif = Image.Exif()
    exif.update({0x010F: 'Leica', 0x0132: 'August', 0x9C9B: b'M\0', 18246: 5, 33550: (.5, .25, 0.)})
    exif.get_ifd(0x8769).update({0x9003: '1936:08:01 12:00:00', 0x829A: 1 / 50})
    exif.get_ifd(0x8825).update({1: 'N', 2: (52., 31., 12.5)})
    grey = np.asarray(photo.convert('L'))
    Image.fromarray(grey if bits == 8 else grey.astype(np.uint16) * 257).save(tmp_path/'in.png', exif=exif)
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'in.png', tmp_path/'out.tif')
    tags = Image.open(tmp_path/'out.tif').getexif()
    assert {t: tags[t] for t in exif if t not in (0x8769, 0x8825)} == {0x010F: 'Leica', 0x0132: 'August', 0x9C9B: b'M\0', 18246: 5, 33550: (.5, .25, 0.)}
    assert tags.get_ifd(0x8769) == {0x9003: '1936:08:01 12:00:00', 0x829A: .02} and tags.get_ifd(0x8825) == {1: 'N', 2: (52., 31., 12.5)}
    assert tifffile.imread(tmp_path/'out.tif').dtype == (np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'tif', 'webp'])
def test_names_keep_their_umlauts(photo, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x013B] = 'Müller'.encode()
    photo.save(tmp_path/'in.jpg', exif=exif)
    Colorizer(None, 64, name='Père', run=lambda x: x).colorize_file(tmp_path/'in.jpg', tmp_path/f'out.{suffix}')
    tags = Image.open(tmp_path/f'out.{suffix}').getexif()
    assert tags[0x013B].encode('latin-1').decode() == 'Müller' and tags[0x0131].endswith('by Père)')


def test_pages_of_a_tiff_keep_what_is_theirs(photo, tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    with tifffile.TiffWriter(tmp_path/'in.tif') as tif:
        for i, profile in enumerate((icc, None)):
            tif.write(np.asarray(photo), photometric='rgb', description=f'page {i}', metadata=None,
                      resolution=(100 + i,) * 2, resolutionunit='INCH', iccprofile=profile)
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'in.tif', tmp_path/'out.tif')
    for i, page in enumerate(read_photo(tmp_path/'out.tif')):
        exif = Image.Exif()
        exif.load(page.exif)
        assert (exif[0x010E], page.dpi, page.icc) == (f'page {i}', (100 + i,) * 2, None if i else icc)


def raw_exif(*entries):
    "EXIF of (tag, type, count, data), whether it makes sense or not."
    body = b''.join(struct.pack('<HHI', tag, kind, count) + data.ljust(4, b'\0') for tag, kind, count, data in entries)
    return b'Exif\0\0II*\0' + struct.pack('<IH', 8, len(entries)) + body + bytes(4)


ODD = dict(resolution=(0x011A, 2, 4, b'300'), make=(0x010F, 12, 1, b''), orientation=(0x0112, 2, 2, b'6'), software=(0x0131, 11, 1, struct.pack('<f', 1.5)),
           size=(0x0100, 2, 2, b'x'), camera=(0x8769, 2, 2, b'x'))


@pytest.mark.parametrize('odd, turned', [(odd, turned) for odd in ODD for turned in (False, True) if not (turned and odd == 'orientation')])
def test_an_odd_tag_is_left_out(photo, tmp_path, odd, turned):
    turn = [(0x0112, 3, 1, b'\6')] if turned else []
    photo.save(tmp_path/'in.jpg', exif=raw_exif(ODD[odd], *turn, (0x013B, 2, 4, b'Ann')))
    page, = read_photo(tmp_path/'in.jpg')
    assert page.luma.shape == (photo.size if turned else photo.size[::-1])
    for suffix in 'jpg', 'png', 'tif', 'webp':
        Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'in.jpg', tmp_path/f'out.{suffix}')
        assert Image.open(tmp_path/f'out.{suffix}').getexif()[0x013B] == 'Ann'


def grey_profile(gamma):
    "A profile of grey numbers that are light to the power of 1 / gamma (ICC.1, sections 7 and 10)."
    curve = b'curv' + struct.pack('>4xIH2x', 1, round(gamma * 256))
    white = b'XYZ ' + struct.pack('>4x3i', *[round(v * 65536) for v in (.9642, 1, .8249)])
    text = b'text' + bytes(4) + b'grey\0\0\0\0'
    tags, at, body = {b'kTRC': curve, b'wtpt': white, b'cprt': text}, 128 + 4 + 3 * 12, b''
    table = struct.pack('>I', len(tags))
    for name, data in tags.items():
        table += name + struct.pack('>II', at + len(body), len(data))
        body += data
    head = struct.pack('>I4sI4s4s4s', at + len(body), b'lcms', 0x02400000, b'mntr', b'GRAY', b'XYZ ').ljust(36, b'\0') + b'acsp'
    head = head.ljust(68, b'\0') + struct.pack('>3i', *[round(v * 65536) for v in (.9642, 1, .8249)])
    return head.ljust(128, b'\0') + table + body


def test_pictures_keep_their_profile(photo, tmp_path):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    photo.save(tmp_path/'in.jpg', icc_profile=icc)
    photo.convert('L').save(tmp_path/'grey.jpg', icc_profile=grey_profile(1.8))
    made = Colorizer(None, 64, run=lambda x: x).batch([Image.open(tmp_path/'in.jpg'), Image.open(tmp_path/'grey.jpg'), Image.new('RGB', (9, 9))])
    for i, im in enumerate(made): im.save(tmp_path/f'{i}.png')
    kept = [Image.open(tmp_path/f'{i}.png').info.get('icc_profile') for i in range(3)]
    assert kept[0] == icc and ImageCms.ImageCmsProfile(io.BytesIO(kept[1])).profile.xcolor_space == 'RGB ' and kept[2] is None


@pytest.mark.parametrize('mode', ['L', 'LA', 'I;16'])
def test_grey_numbers_of_a_profile_become_those_of_srgb(tmp_path, mode):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    im = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == 'I;16' else Image.fromarray(ramp).convert(mode)
    light = (np.arange(256) / 255)**1.8
    srgb = np.where(light <= .0031308, 12.92 * light, 1.055 * light**(1 / 2.4) - .055) * 255
    for icc, want in ((grey_profile(1.8), srgb), (b'no profile at all', np.arange(256))):
        im.save(tmp_path/'in.tif', icc_profile=icc)
        page, = read_photo(tmp_path/'in.tif')
        got = page.luma[0].astype(float) / (257 if mode == 'I;16' else 1)
        assert np.abs(got - want).max() <= 1.5 and np.abs(srgb - np.arange(256)).max() > 8
        assert (page.icc is None) == (icc == b'no profile at all') and (page.luma.dtype == np.uint16) == (mode == 'I;16')


@pytest.mark.parametrize('compression', [None, 'tiff_adobe_deflate'])
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('orientation', [3, 6, 8])
def test_orientation_of_tiffs(photo, tmp_path, orientation, bits, compression):
    grey = np.asarray(photo.convert('L')).astype(np.uint16 if bits == 16 else np.uint8) * (257 if bits == 16 else 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey).save(tmp_path/'in.tif', exif=exif, compression=compression)
    upright = np.rot90(grey, {3: 2, 6: -1, 8: 1}[orientation])
    page, = read_photo(tmp_path/'in.tif')
    assert page.luma.dtype == grey.dtype and (page.luma == upright).all()
    shown = Colorizer(None, 64, run=lambda x: x)(Image.open(tmp_path/'in.tif'), saturation=0)
    assert np.abs(np.asarray(shown, int) - (upright >> bits - 8)[..., None]).max() <= 1
    assert np.abs(np.asarray(load_photo(tmp_path/'in.tif').convert('L'), int) - (upright >> bits - 8)).max() <= 1


@pytest.mark.parametrize('bits', [8, 16])
def test_tiffs_whose_white_is_0(photo, tmp_path, bits):
    grey = np.asarray(photo.convert('L')).astype(np.uint16 if bits == 16 else np.uint8) * (257 if bits == 16 else 1)
    tifffile.imwrite(tmp_path/'in.tif', np.iinfo(grey.dtype).max - grey, photometric='miniswhite')
    assert (read_photo(tmp_path/'in.tif')[0].luma == grey).all()


def test_many_small_pages_are_no_way_round_the_limit(tmp_path):
    dot = Image.new('L', (1, 1))
    dot.save(tmp_path/'in.tif', save_all=True, append_images=[dot] * 300)
    with pytest.raises(UserError, match='pages with more than 200,000,000'): read_photo(tmp_path/'in.tif')
    with tifffile.TiffWriter(tmp_path/'in.tif') as tif:                   # nor are previews, which are left out
        for i in range(60): tif.write(np.zeros((1, 1), np.uint8), subfiletype=int(i > 0))
    assert len(read_photo(tmp_path/'in.tif')) == 1
    with pytest.raises(UserError, match='pages with more than 5,000,000'): read_photo(tmp_path/'in.tif', 5_000_000)


def test_a_photo_of_no_end_of_tags_is_read_all_the_same(photo, tmp_path):
    photo.save(tmp_path/'in.png', exif=raw_exif((0x010F, 2, 4, b'Ann'), *((0x4000 + i, 3, 1, b'\1') for i in range(8_000))))
    tags = Image.Exif()
    tags.load(read_photo(tmp_path/'in.png')[0].exif)
    assert tags[0x010F] == 'Ann' and len(tags) == MOST


def test_a_small_copy_of_a_page_is_no_page(photo, tmp_path):
    grey = np.asarray(photo.convert('L'))
    with tifffile.TiffWriter(tmp_path/'in.tif') as tif:
        tif.write(grey)
        tif.write(grey[::4, ::4], subfiletype=1)
    assert [p.luma.shape for p in read_photo(tmp_path/'in.tif')] == [grey.shape]


def test_12_bits_of_a_tiff_are_all_of_its_range(tmp_path):
    values = np.linspace(0, 4095, 64 * 64).round().astype(int)
    packed = b''.join(int(a << 12 | b).to_bytes(3, 'big') for a, b in values.reshape(-1, 2))
    tags = {256: 64, 257: 64, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: len(packed)}
    ifd = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', t, 4, 1, v) for t, v in tags.items()) + bytes(4)
    (tmp_path/'in.tif').write_bytes(struct.pack('<2sHI', b'II', 42, 8 + len(packed)) + packed + ifd)
    page, = read_photo(tmp_path/'in.tif')
    assert np.abs(page.luma.ravel() - values * (65535 / 4095)).max() <= .5


def test_lab_scans_are_read(photo, tmp_path):
    lab = ImageCms.profileToProfile(photo, ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB')
    lab.save(tmp_path/'in.tif')
    page, = read_photo(tmp_path/'in.tif')
    assert np.abs(page.luma.astype(int) - np.asarray(photo.convert('L'), int)).mean() < 1.5


@pytest.mark.parametrize('suffix', ['png', 'webp', 'jpg'])
def test_damaged_tags_are_no_reason_to_refuse_a_photo(photo, tmp_path, suffix):
    photo.save(tmp_path/f'in.{suffix}', exif=b'Exif\0\0garbage!!')
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/f'in.{suffix}', tmp_path/'out.png')
    assert Image.open(tmp_path/'out.png').size == photo.size


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" dc:title="K\xc3\xa4the"/></x:xmpmeta>'

@pytest.mark.parametrize('suffix', ['png', 'webp', 'jpg', 'tif'])
@pytest.mark.parametrize('came', ['png', 'webp', 'jpg', 'tif'])
def test_captions_stay_and_a_turned_photo_says_nothing_of_its_old_sides(photo, tmp_path, came, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    owner = 'Jorg' if came == 'tif' else 'Jörg'.encode().decode('latin-1')   # UTF-8, as cameras write it and Pillow reads it; not so in TIFFs
    class Latin(str):
        def encode(self, *args): return str.encode(self, 'latin-1')
    exif[0x8769] = {0x9003: '1936:08:01 12:00:00', 0xA002: 160, 0xA003: 107, 0xA430: Latin(owner)}
    if came == 'tif': exif[700] = XMP
    options = dict(exif=exif.tobytes()) | (dict(xmp=XMP) if came != 'tif' else {})
    if came == 'png':
        options['pnginfo'] = PngImagePlugin.PngInfo()
        options['pnginfo'].add_itxt('XML:com.adobe.xmp', XMP.decode())
    photo.save(tmp_path/f'in.{came}', **options)
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/f'in.{came}', tmp_path/f'out.{suffix}')
    out = Image.open(tmp_path/f'out.{suffix}')
    assert out.size == photo.size[::-1] and out.getexif().get_ifd(0x8769) == {0x9003: '1936:08:01 12:00:00', 0xA430: owner}
    kept = out.tag_v2[700] if suffix == 'tif' else out.info['xmp']
    assert (kept.encode() if isinstance(kept, str) else kept) == XMP.replace(b'tiff:Orientation="6"', b'')
    if came == 'png':
        photo.convert('I;16').save(tmp_path/'deep.png', pnginfo=options['pnginfo'])
        Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'deep.png', tmp_path/'deep out.png')
        assert b'K\xc3\xa4the' in Image.open(tmp_path/'deep out.png').info['xmp']


IPTC = b'\x1c\x02\x78\x00\x05K\xc3\xa4th\x1c\x02\x19\x00\x03sea'   # a caption, a keyword: 18 bytes, no multiple of 4

def _with_iptc(photo, path, kind):
    "Captions as cameras and agencies write them: in a JPEG's block, or in a TIFF's tag, as bytes or as numbers of either byte order."
    if kind == 'jpg':
        block = b'Photoshop 3.0\x008BIM\x04\x25\0\0' + struct.pack('>I', 16) + bytes(16) + b'8BIM\x04\x04\0\0' + struct.pack('>I', len(IPTC)) + IPTC
        photo.save(path, extra=b'\xff\xed' + struct.pack('>H', len(block) + 2) + block)
    else:
        data = IPTC + bytes(-len(IPTC) % 4)
        tag = (0x83BB, 'B', len(data), data) if kind == 'bytes' else (0x83BB, 'I', len(data) // 4, struct.unpack(f'{kind}{len(data) // 4}I', data))
        with tifffile.TiffWriter(path, byteorder='>' if kind == '>' else '<') as tif: tif.write(np.asarray(photo), photometric='rgb', extratags=[tag + (True,)])

@pytest.mark.parametrize('suffix', ['png', 'webp', 'jpg', 'tif'])
@pytest.mark.parametrize('came', ['jpg', 'bytes', '<', '>'])
def test_captions_of_archives_stay(photo, tmp_path, came, suffix):
    source = tmp_path/('in.jpg' if came == 'jpg' else 'in.tif')
    _with_iptc(photo, source, came)
    colorizer = Colorizer(None, 64, run=lambda x: x)
    colorizer.colorize_file(source, tmp_path/f'out.{suffix}')
    colorizer.colorize_file(tmp_path/f'out.{suffix}', tmp_path/'again.jpg')
    kept = Image.open(tmp_path/'again.jpg').info['photoshop'][0x0404]
    assert kept[:len(IPTC)] == IPTC and not kept[len(IPTC):].strip(b'\0') and IptcImagePlugin.getiptcinfo(Image.open(tmp_path/'again.jpg'))[2, 25] == b'sea'
    if suffix == 'tif': assert IptcImagePlugin.getiptcinfo(Image.open(tmp_path/'out.tif'))[2, 120] == b'K\xc3\xa4th'
    elif suffix == 'jpg': assert 0x83BB not in Image.open(tmp_path/'out.jpg').getexif()


def test_captions_of_a_phones_two_pictures_and_of_both_kinds_of_quotes(photo, tmp_path):
    photo.save(tmp_path/'two.jpg', 'MPO', save_all=True, append_images=[photo])
    blocks = {0xED: b'Photoshop 3.0\x008BIM\x04\x04\0\0' + struct.pack('>I', len(IPTC)) + IPTC,
              0xE1: b'http://ns.adobe.com/xap/1.0/\0' + XMP.replace(b'"6"', b"'6'")}
    more = b''.join(b'\xff' + bytes([k]) + struct.pack('>H', len(b) + 2) + b for k, b in blocks.items())
    data = (tmp_path/'two.jpg').read_bytes()
    (tmp_path/'two.jpg').write_bytes(data[:2] + more + data[2:])
    with Image.open(tmp_path/'two.jpg') as two: assert two.format == 'MPO' and b"Orientation='6'" in two.info['xmp']
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'two.jpg', tmp_path/'out.jpg')
    out = Image.open(tmp_path/'out.jpg')
    assert out.info['photoshop'][0x0404] == IPTC and b'Orientation' not in out.info['xmp'] and b'K\xc3\xa4the' in out.info['xmp']


@pytest.mark.parametrize('top', [1, 255, 65535])
def test_float_scans_that_were_sharpened_keep_their_light(tmp_path, top):
    y = np.linspace(-.02, 1.02, 104, dtype=np.float32)[None].repeat(20, 0)
    Image.fromarray(y * top).save(tmp_path/'in.tif')
    got = read_photo(tmp_path/'in.tif')[0].luma
    assert np.abs(got / 65535. - y.clip(0, 1)).max() < 1e-4
    Image.fromarray(np.where(y > 1, np.nan, y)).save(tmp_path/'nan.tif')
    with pytest.raises(UserError, match='no numbers'): read_photo(tmp_path/'nan.tif')


def test_a_raw_photo_whose_preview_is_all_that_can_be_seen_is_refused(photo, tmp_path):
    with tifffile.TiffWriter(tmp_path/'x.dng') as tif:
        tif.write(np.asarray(photo.resize((40, 30))), subfiletype=1, subifds=1, photometric='rgb')
        tif.write(np.asarray(photo), subfiletype=0, photometric='rgb')
    with pytest.raises(UserError, match='raw photo: develop it first'): read_photo(tmp_path/'x.dng')


def test_an_input_under_another_name_is_not_written_over(photo, tmp_path):
    "As on disks where `Album` is `album`: here a second name of the same file."
    (tmp_path/'a').mkdir()
    (tmp_path/'b').mkdir()
    photo.save(tmp_path/'a'/'x.png')
    os.link(tmp_path/'a'/'x.png', tmp_path/'b'/'x.png')
    with pytest.raises(UserError, match='is an input'): plan_jobs([tmp_path/'a'], tmp_path/'b')


def test_captions_that_no_jpeg_can_hold_are_left_out(photo, tmp_path):
    exif,long = Image.Exif(),PngImagePlugin.PngInfo()
    exif[0x010F], exif[0x83BB] = 'Leica', IPTC * 10_000
    long.add_itxt('XML:com.adobe.xmp', 'x' * 70_000)
    photo.save(tmp_path/'in.png', exif=exif, pnginfo=long)
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'in.png', tmp_path/'out.jpg')
    out = Image.open(tmp_path/'out.jpg')
    assert out.size == photo.size and out.getexif()[0x010F] == 'Leica' and not {'xmp', 'photoshop'} & out.info.keys()


def test_notes_of_a_cameras_maker_that_no_jpeg_can_hold_are_left_out(photo, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = 'Leica', {0x9003: '1936:08:01 12:00:00', 0x927C: bytes(80_000)}
    photo.save(tmp_path/'in.png', exif=exif)
    Colorizer(None, 64, run=lambda x: x).colorize_file(tmp_path/'in.png', tmp_path/'out.jpg')
    assert Image.open(tmp_path/'out.jpg').getexif().get_ifd(0x8769) == {0x9003: '1936:08:01 12:00:00'}


def test_grey_results_are_no_success(photo, tmp_path):
    net = generators['unet'](backbone='resnet18', width=.25)
    net.chroma = 1e-4
    model = tmp_path/'dull.safetensors'
    save_generator(net, model, 'unet', dict(backbone='resnet18', width=.25), 64)
    photo.save(tmp_path/'in.png')
    out = run('colorize', 'in.png', '-o', 'a.png', '--model', model, cwd=tmp_path)
    assert out.returncode == 1 and 'a.png came out nearly grey' in out.stderr and '--allow-grey' in out.stderr and (tmp_path/'a.png').exists()
    for options in (['--allow-grey'], ['--saturation', '0']):
        assert run('colorize', 'in.png', '-o', f'{options[0]}.png', '--model', model, *options, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize('inputs', ['scans/*', "'scans/**/*.png'"])
def test_the_same_command_again_skips_results_inside_of_the_input(model, photo, tmp_path, inputs):
    (tmp_path/'scans'/'a').mkdir(parents=True)
    photo.save(tmp_path/'scans'/'one.png')
    photo.save(tmp_path/'scans'/'a'/'two.png')
    command = f'{sys.executable} -m deoldify_lite.cli colorize {inputs} -o scans/out --model {model} --device cpu'
    first, again = [subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True) for _ in range(2)]
    assert first.returncode == 0 and '2 colorized' in first.stdout, first.stderr
    assert again.returncode == 0 and '0 colorized on cpu, 2 were there' in again.stdout, again.stderr


def test_more_saturation_is_less_grey(photo, tmp_path):
    photo.save(tmp_path/'in.png')
    jobs = plan_jobs([tmp_path/'in.png'], tmp_path/'out')
    def tint(x): return x + np.array([.07, 0, 0], np.float32)[:, None, None]     # of normalised numbers: 0.008 in the mean
    def pale(saturation): return colorize_all(Colorizer(None, 64, run=tint), jobs, Style(saturation=saturation), True, False)[2]
    assert [len(pale(s)) for s in (0, .5, 1, 1.5)] == [0, 1, 1, 0]


def test_a_photo_too_large_for_the_memory_is_told_so(photo, tmp_path, monkeypatch):
    photo.save(tmp_path/'in.png')
    def full(*args): raise MemoryError
    monkeypatch.setattr('deoldify_lite.files.read_page', full)
    with pytest.raises(UserError, match='in.png: there is not enough memory'): read_photo(tmp_path/'in.png')


def test_formats_that_would_lose_something_become_png(photo, tmp_path):
    for name in ('a.bmp', 'b.ppm', 'c.jp2', 'd.gif'): assert plan_jobs([photo_in(tmp_path, photo, name)], tmp_path/'out')[0].dst.suffix == '.png'


def test_photos_that_differ_in_their_format_only_go_on_together(photo, tmp_path):
    (tmp_path/'in').mkdir()
    for name in ('a.bmp', 'a.png', 'a.gif'): photo_in(tmp_path/'in', photo, name)
    jobs = plan_jobs([tmp_path/'in'], tmp_path/'out')
    assert [j.dst.name for j in jobs] == ['a.bmp.png', 'a.gif.png', 'a.png']
    assert [plan_jobs([tmp_path/'in'/j.src.name], tmp_path/'out') for j in jobs] == [[j] for j in jobs]   # a name follows from its photo alone
    assert colorize_all(Colorizer(None, 64, run=lambda x: x), jobs, progress=False)[:2] == (3, [])
    assert colorize_all(Colorizer(None, 64, run=lambda x: x), plan_jobs([tmp_path/'in'], tmp_path/'out'), progress=False)[0] == 0
    photo_in(tmp_path/'in', photo, 'a.bmp.png')
    with pytest.raises(UserError, match='would both become'): plan_jobs([tmp_path/'in'], tmp_path/'out')


def test_a_folder_does_not_become_a_file(tmp_path, photo):
    (tmp_path/'in').mkdir()
    one = photo_in(tmp_path/'in', photo, 'a.png')
    with pytest.raises(UserError, match='is one file, for a folder of photos: name a folder'): plan_jobs([tmp_path/'in'], tmp_path/'new.png')
    assert plan_jobs([tmp_path/'in'], tmp_path/'new.v2')[0].dst == tmp_path/'new.v2'/'a.png' and plan_jobs([one], tmp_path/'new.png')[0].dst == tmp_path/'new.png'


def test_a_picture_keeps_its_name_and_must_have_pixels(tmp_path, photo):
    path = photo_in(tmp_path, photo, 'a.png')
    colorizer = Colorizer(None, 64, run=lambda x: x)
    with Image.open(path) as im:
        colorizer(im)
        assert im.filename == str(path)
    with pytest.raises(UserError, match='the picture has no pixels'): colorizer(Image.new('L', (0, 5)))


def test_sides_that_a_format_cannot_hold_are_told(tmp_path):
    for name, width in {'a.webp': 9_000, 'b.jpg': 33_000, 'c.png': 33_000}.items(): Image.new('L', (width, 2)).save(tmp_path/name)
    jobs = plan_jobs([tmp_path], tmp_path/'out')
    done, failed, _ = colorize_all(Colorizer(None, 64, run=lambda x: x), jobs, Style(compare=True), progress=False)
    assert done == 1 and ['this would have 18,000: choose .png' in failed[0], 'this would have 66,000: choose .png' in failed[1]] == [True, True]
    assert colorize_all(Colorizer(None, 64, run=lambda x: x), jobs, progress=False)[:2] == (2, [])


def test_a_network_that_fails_and_a_folder_that_ends_early_lose_no_failure(photo, tmp_path):
    for i in range(10): photo.convert('L').resize((40 + i, 40)).save(tmp_path/f'{i}.png')
    (tmp_path/'0.png').write_text('no photo')
    jobs, calls = plan_jobs([tmp_path], tmp_path/'out'), []
    def network(x, error=ValueError('too odd')):
        calls.append(1)
        if len(calls) == 2: raise error
        return x
    done, failed, _ = colorize_all(Colorizer(None, 64, run=network), jobs, progress=False)
    assert done == 5 and [f for f in failed if '0.png cannot be read' in f] and sum('could not be colorized (ValueError: too odd)' in f for f in failed) == 4
    def stops(x): return network(x, KeyboardInterrupt())
    calls.clear()
    with pytest.warns(UserWarning, match='0.png cannot be read'), pytest.raises(KeyboardInterrupt):
        colorize_all(Colorizer(None, 64, run=stops), jobs, overwrite=True, progress=False)


def photo_in(folder, photo, name):
    (folder/name).parent.mkdir(parents=True, exist_ok=True)
    photo.convert('L').save(folder/name)
    return folder/name


def test_pages_of_a_tiff(model, photo, tmp_path):
    pages = [photo.convert('L').rotate(a) for a in (0, 90, 180)]
    pages[0].save(tmp_path/'in.tif', save_all=True, append_images=pages[1:])
    assert run('colorize', 'in.tif', '-o', 'out.tif', '--model', model, cwd=tmp_path).returncode == 0
    out = Image.open(tmp_path/'out.tif')
    assert out.n_frames == 3
    for i, page in enumerate(pages):
        out.seek(i)
        assert np.abs(luma(np.asarray(out)) - np.asarray(page, int)).max() <= 1


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('compression', [None, 'zlib'])
def test_separate_planes_of_16_bits(tmp_path, photo, order, compression):
    colours = np.asarray(photo.convert('RGB'), np.uint16) * 257
    with tifffile.TiffWriter(tmp_path/'in.tif', byteorder=order) as tif:
        tif.write(colours.transpose(2, 0, 1), photometric='rgb', planarconfig='separate', compression=compression)
    assert np.abs(read_photo(tmp_path/'in.tif')[0].luma.astype(int) - np.asarray(photo.convert('L'), int)).max() <= 1


def test_weights_that_answer_no_numbers_are_refused(photo, tmp_path):
    photo.save(tmp_path/'in.png')
    broken = Colorizer(None, 64, name='broken', run=lambda x: x * np.nan)
    with pytest.raises(UserError, match='broken answers what is no colour'): broken.colorize_file(tmp_path/'in.png', tmp_path/'out.png')
    with pytest.raises(UserError, match='broken answers'): colorize_all(broken, plan_jobs([tmp_path/'in.png'], tmp_path/'out'), progress=False)
    assert [f.name for f in tmp_path.rglob('*') if f.is_file()] == ['in.png']


def test_the_mark_is_seen_where_the_photo_is_not(tmp_path, photo):
    clear = photo.convert('RGBA')
    clear.putalpha(0)
    clear.save(tmp_path/'in.png')
    colorize_all(Colorizer(None, 64, run=lambda x: x), plan_jobs([tmp_path/'in.png'], tmp_path/'out'), Style(label=True), progress=False)
    alpha = np.asarray(Image.open(tmp_path/'out'/'in.png'))[..., 3]
    assert alpha[-20:, :40].mean() > 128 and alpha[:alpha.shape[0] // 2].max() == 0


def bomb(path):
    "A PNG of a hundred bytes that says it is 60,000 pixels wide and high."
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0))
                     + chunk(b'IDAT', zlib.compress(b'\0' * 100)) + chunk(b'IEND', b''))


def test_a_folder_goes_on_after_bad_files_and_skips_what_is_done(model, photo, tmp_path):
    (tmp_path/'in'/'deep'/'er').mkdir(parents=True)
    good = [tmp_path/'in'/'a.png', tmp_path/'in'/'deep'/'a.png', tmp_path/'in'/'deep'/'er'/'b.jpg']
    for f in good: photo.convert('L').save(f)
    (tmp_path/'in'/'broken.jpg').write_bytes(good[2].read_bytes()[:500])
    (tmp_path/'in'/'page.png').write_text('<html>')
    (tmp_path/'in'/'letter.txt').write_text('no photo')
    photo.save(tmp_path/'in'/'film.gif', save_all=True, append_images=[photo.rotate(90)])
    bomb(tmp_path/'in'/'bomb.png')
    before = {f: f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()}
    out = run('colorize', 'in', '-o', 'out', '--model', model, cwd=tmp_path)
    assert out.returncode == 1 and '3 colorized on cpu, 4 failed' in out.stdout
    for name, says in {'broken.jpg': 'cannot be read', 'page.png': 'cannot be read', 'film.gif': 'is an animation', 'bomb.png': 'more than 200,000,000'}.items():
        assert any(name in line and says in line for line in out.stderr.splitlines()), out.stderr
    made = {f.relative_to(tmp_path/'out') for f in (tmp_path/'out').rglob('*') if f.is_file()}
    assert made == {f.relative_to(tmp_path/'in') for f in good}
    assert all(f.read_bytes() == data for f, data in before.items())
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path/'out').rglob('*.*')}
    again = run('colorize', 'in', '-o', 'out', '--model', model, cwd=tmp_path)
    assert '0 colorized on cpu, 3 were there (--overwrite does them again), 4 failed' in again.stdout
    assert stamps == {f: f.stat().st_mtime_ns for f in (tmp_path/'out').rglob('*.*')}
    once_more = run('colorize', 'in/a.png', '-o', 'out', '--model', model, '--overwrite', cwd=tmp_path)
    assert once_more.returncode == 0 and (tmp_path/'out'/'a.png').stat().st_mtime_ns > stamps[tmp_path/'out'/'a.png']


def test_names_that_disks_do_not_take_and_folders_in_the_way(photo, tmp_path):
    (tmp_path/'in').mkdir()
    for name in 'ok.png', 'x' * 250 + '.bmp', 'y' * 251 + '.png', 'z.png': photo.save(tmp_path/'in'/name)
    (tmp_path/'out'/'z.png').mkdir(parents=True)
    for done in (2, 0):                                                  # a name that cannot get .png behind it fails each time, and stops nobody
        jobs = plan_jobs([tmp_path/'in'], tmp_path/'out')
        made, failed, _ = colorize_all(Colorizer(None, 64, run=lambda x: x * [[[1]], [[.9]], [[.8]]]), jobs, progress=False)
        assert made == done and len(failed) == 2 and 'name too long' in failed[0] and 'z.png cannot be written' in failed[1]
    assert not [f for f in (tmp_path/'out').iterdir() if f.name.startswith('.')]


def test_two_commands_on_one_folder_do_not_disturb_each_other(photo, tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(24): photo.save(tmp_path/'in'/f'{i:02}.png')
    jobs, net = plan_jobs([tmp_path/'in'], tmp_path/'out'), Colorizer(None, 64, run=lambda x: x * [[[1]], [[.9]], [[.8]]])
    with ThreadPoolExecutor(2) as two: runs = list(two.map(lambda _: colorize_all(net, jobs, overwrite=True, progress=False), range(2)))
    assert [failed for _, failed, _ in runs] == [[], []]
    assert sorted(f.name for f in (tmp_path/'out').iterdir()) == [j.dst.name for j in jobs]


def test_what_a_kill_left_goes_with_the_next_command(photo, tmp_path):
    photo.save(tmp_path/'in.png')
    with atomic(tmp_path/'out'/'in.png', shared=True) as part: part.touch()
    old, new, theirs = part, part.with_name('.01234567-89abcdef.part.png'), part.with_name('.letters.part.png')
    for f in old, new, theirs: f.write_bytes(b'half')
    for f in old, theirs: os.utime(f, (1, 1))
    colorize_all(Colorizer(None, 64, run=lambda x: x), plan_jobs([tmp_path/'in.png'], tmp_path/'out'), overwrite=True, progress=False)
    assert not old.exists() and new.exists() and theirs.exists()         # somebody may be writing the new one, and that of another name is not ours


def test_large_photos_are_worked_on_one_by_one(tmp_path, monkeypatch):
    from deoldify_lite import folders
    sides = dict(a=100, b=100, c=10, d=300, e=10, f=10, g=10, h=10, i=10)
    for name, side in sides.items(): Image.new('L', (side, side)).save(tmp_path/f'{name}.png')
    monkeypatch.setattr(folders, 'GROUP', 25_000)
    groups = folders._groups(plan_jobs([tmp_path], tmp_path/'out'))
    assert [''.join(j.src.stem for j in g) for g in groups] == ['abc', 'd', 'efgh', 'i']


def test_inputs_named_twice_linked_or_empty(photo, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'other').mkdir()
    for f in 'in/a.png', 'other/b.png': photo.save(tmp_path/f)
    (tmp_path/'in'/'link').symlink_to(tmp_path/'other')
    with pytest.warns(UserWarning, match='link is a link to a folder, and is left out'): jobs = plan_jobs([tmp_path/'in', tmp_path/'in'/'.'/'a.png'], tmp_path/'out')
    assert [j.src.name for j in jobs] == ['a.png']
    with pytest.raises(UserError, match='inputs is empty'): plan_jobs([''], tmp_path/'out')


def test_shards_share_the_work(model, photo, tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(9): photo.convert('L').rotate(i).save(tmp_path/'in'/f'{i}.png')
    counts = []
    for i in (1, 2, 3):
        out = run('colorize', 'in', '-o', 'out', '--model', model, '--shard', f'{i}/3', cwd=tmp_path)
        counts.append(int(out.stdout.split()[0]))
    assert sum(counts) == 9 == len(list((tmp_path/'out').iterdir())) and max(counts) < 9


def test_options(model, photo, tmp_path):
    grey = photo.convert('L')
    grey.save(tmp_path/'in.png')
    colorize = lambda out, *options: run('colorize', 'in.png', '-o', out, '--model', model, *options, cwd=tmp_path)
    assert colorize('grey.png', '--saturation', 0).returncode == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path/'grey.png')), np.repeat(np.asarray(grey)[..., None], 3, 2))
    assert colorize('plain.png').returncode == colorize('both.png', '--compare').returncode == colorize('mark.png', '--label').returncode == 0
    plain, both, mark = [np.asarray(Image.open(tmp_path/f'{n}.png'), int) for n in ('plain', 'both', 'mark')]
    assert np.array_equal(both[:, 160:], plain) and np.array_equal(both[:, :160, 0], np.asarray(grey))
    changed = np.argwhere((plain != mark).any(-1))
    assert len(changed) and changed[:, 0].min() > 80 and changed[:, 1].max() < 120     # the lower left corner, and nothing else
    assert colorize('sheet.png', '--contact-sheet').returncode == 0
    assert Image.open(tmp_path/'sheet.png').width > 5 * 100
    was = (tmp_path/'sheet.png').stat().st_mtime_ns
    assert 'were there' in colorize('sheet.png', '--contact-sheet').stdout and (tmp_path/'sheet.png').stat().st_mtime_ns == was
    fails('leave --compare, --label and --render-factor out', 'colorize', 'in.png', '-o', 'x.png', '--contact-sheet', '--render-factor', 4, cwd=tmp_path)
    fails('is the input itself', 'pack', model, '-o', model, cwd=tmp_path)
    fails('is the checkpoint itself', 'import-deoldify', model, model, cwd=tmp_path)
    fails('no run mine to export', 'export', '--onnx', cwd=tmp_path)
    fails('must be a whole number, 2 or more, not 1', 'colorize', 'in.png', '-o', 'x.png', '--model', model, '--render-factor', 1, cwd=tmp_path)
    fails('such as 3/16', 'colorize', 'in.png', '-o', 'x.png', '--model', model, '--shard', '17/16', cwd=tmp_path)
    fails("no device 'abacus'", 'colorize', 'in.png', '-o', 'x.png', '--model', model, '--device', 'abacus', cwd=tmp_path)
    fails('1 of 1 photos failed', 'colorize', 'in.png', '-o', 'x.png', '--model', model, '--max-pixels', 1000, cwd=tmp_path)
    fails('is an input', 'colorize', 'in.png', '-o', 'in.png', '--model', model, '--overwrite', cwd=tmp_path)
    for wrong in 'nan', '-1', '3.1': fails('number from 0 to 3', 'colorize', 'in.png', '-o', 'x.png', '--model', model, '--saturation', wrong, cwd=tmp_path)
    fails('name a folder', 'colorize', 'in.png', 'both.png', '-o', 'x.png', '--model', model, cwd=tmp_path)
    fails("not written as '.xyz'", 'colorize', 'in.png', '-o', 'x.xyz', '--model', model, cwd=tmp_path)
    assert not (tmp_path/'x.png').exists() and not (tmp_path/'x.xyz').exists()


def test_originals_in_the_output_folder_are_not_written_over(model, photo, tmp_path):
    "What is there and was not made by us is an input as any other."
    for name in ('a/x.png', 'b/x.png', 'p/one.png', 'p/sub/one.png', 'p/sub/two.png'):
        (tmp_path/name).parent.mkdir(exist_ok=True, parents=True)
        photo.save(tmp_path/name)
    before = {f: f.read_bytes() for f in tmp_path.rglob('*.png')}
    (tmp_path/'link').symlink_to('a')
    for inputs, out in ((['a', 'b'], 'a'), (['a', 'b'], 'link'), (['a/*', 'b/*'], 'a'), (['p'], 'p/sub')):
        says = 'colorize them into different folders' if len(inputs) > 1 else 'is an input'
        for options in [], ['--overwrite']: fails(says, 'colorize', *inputs, '-o', out, '--model', model, *options, cwd=tmp_path)
    assert {f: f.read_bytes() for f in tmp_path.rglob('*.png') if not f.is_relative_to(tmp_path/'link')} == before
    for name in 'p/sub/one.png', 'p/sub/two.png': (tmp_path/name).unlink()
    for kind in [], ['--compare'], ['--contact-sheet']:                         # and our own results are none
        for said in '1 colorized', '1 were there': assert said in run('colorize', 'p', '-o', 'p/sub', '--model', model, *kind, cwd=tmp_path).stdout
    assert sorted(f.name for f in (tmp_path/'p'/'sub').iterdir()) == ['one.compare.png', 'one.png', 'one.sheet.png']
    (tmp_path/'bm').mkdir()
    photo.save(tmp_path/'bm'/'c.bmp')
    for said in '1 colorized', '1 were there': assert said in run('colorize', 'bm', '-o', 'bm', '--model', model, cwd=tmp_path).stdout
    assert '1 colorized' in run('colorize', 'a/*.png', '-o', '.', '--model', model, cwd=tmp_path).stdout   # below OUT, and photos all the same
    fails('but results of ours', 'colorize', 'p/sub', '-o', 'p/sub', '--model', model, cwd=tmp_path)


def test_what_cannot_be_read_is_a_failure(model, photo, tmp_path, monkeypatch):
    photo_in(tmp_path, photo, 'in/good.png')
    (tmp_path/'in'/'lost.png').symlink_to('nowhere.png')
    os.mkfifo(tmp_path/'in'/'pipe.png')
    (tmp_path/'in'/'closed').mkdir()
    walked, may = os.walk, os.access
    def closed(root, onerror=None, **options):                               # as for others than root
        for folder, subs, names in walked(root, **options):
            if folder.endswith('closed'): onerror(PermissionError(13, 'Permission denied', folder))
            else: yield folder, subs, names
    monkeypatch.setattr(os, 'walk', closed)
    monkeypatch.setattr(os, 'access', lambda path, mode: False if str(path).endswith('closed') else may(path, mode))
    for i, inputs in enumerate((['in'], ['in/*.png', 'in/closed/*.png'], ['in/**/*.png'])):
        out = run('colorize', *inputs, '-o', f'out{i}', '--model', model, cwd=tmp_path)
        assert out.returncode == 1 and '1 colorized' in out.stdout and '3 of 4 photos failed' in out.stderr, out.stderr
        for words in ('There is no file in/lost.png', 'in/pipe.png is no file', 'No permission to read in/closed'): assert words in out.stderr
    for name in 'weights.safetensors', 'weights.pth':
        os.mkfifo(tmp_path/name)
        fails('is no file', 'colorize', 'in/good.png', '-o', 'x.png', '--model', name, cwd=tmp_path)


def test_patterns_do_not_go_round_in_circles(photo, tmp_path):
    for name in 'in/a.png', 'in/sub/deep/b.png', 'else/c.png': photo_in(tmp_path, photo, name)
    (tmp_path/'in'/'sub'/'deep'/'loop').symlink_to('..')
    (tmp_path/'in'/'linked').symlink_to('../else')
    (tmp_path/'in'/'twice.png').symlink_to('a.png')
    jobs = plan_jobs([f'{tmp_path}/in/**/*.png'], tmp_path/'out')
    assert [j.dst.relative_to(tmp_path/'out').as_posix() for j in jobs] == ['a.png', 'linked/c.png', 'sub/deep/b.png', 'twice.png']


def test_sheets_and_comparisons_do_not_stand_for_the_result(model, photo, tmp_path):
    photo.save(tmp_path/'in.png')
    for options in (['--contact-sheet'], ['--compare'], []):
        assert '1 colorized' in run('colorize', 'in.png', '-o', 'out', '--model', model, *options, cwd=tmp_path).stdout
    assert sorted(f.name for f in (tmp_path/'out').iterdir()) == ['in.compare.png', 'in.png', 'in.sheet.png']


def test_headers_that_no_version_of_ours_wrote(model, photo, tmp_path):
    from safetensors.torch import load_file, save_file
    photo.save(tmp_path/'in.png')
    good = dict(format=1, generator='unet', args=ARGS, size=64)
    damaged, newer, other = 'or it is damaged', 'made by a newer version', 'describes a network that is not known here'
    for header, says in ((dict(), damaged), ([], damaged), (3, damaged), (good | dict(size='64'), damaged), (good | dict(args=None), damaged),
                         (good | dict(format=9), newer), (good | dict(generator='transformer'), newer), (good | dict(args=dict(heads=8)), other)):
        save_file(load_file(model), tmp_path/'odd.safetensors', dict(deoldify_lite=json.dumps(header)))
        fails(says, 'colorize', 'in.png', '-o', 'out.png', '--model', 'odd.safetensors', cwd=tmp_path)
        assert ('odd.safetensors' in check_weights(tmp_path/'odd.safetensors')) == (says != other)


def test_commands_about_weights(model, tmp_path):
    (tmp_path/'small.safetensors').write_bytes(model.read_bytes())
    out = run('export', '--onnx', '--model', 'small.safetensors', cwd=tmp_path)
    assert out.returncode == 0 and 'small.onnx' in out.stdout and Colorizer.load(tmp_path/'small.onnx').size == 64
    (tmp_path/'models'/'mine').mkdir(parents=True)
    shutil.copy(tmp_path/'small.onnx', tmp_path/'models'/'top.onnx')
    (tmp_path/'small.onnx').rename(tmp_path/'models'/'mine'/'small.onnx')
    (tmp_path/'models'/'mine'/'small.md').write_bytes(b'caf\xe9')             # a card in another encoding
    said = run('doctor', cwd=tmp_path).stdout
    assert len(re.findall(r'(?:mine/small|models/top)\.onnx +whole, \d+ MiB, ONNX at 64 px', said)) == 2
    assert all(w in said for w in ('packages', 'devices', 'GiB free', 'bf16'))


def test_a_run_folder_stands_for_its_generator(model, tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'generator.safetensors').write_bytes(model.read_bytes())
    assert Colorizer.load(tmp_path/'run').name == 'run'


def test_released_weights_are_what_the_card_says_and_the_default(tmp_path):
    if not RELEASED.exists(): pytest.skip('no released weights beside this package: it is not a clone')
    assert RELEASED.stat().st_size < 45 * 2**20
    assert check_weights(RELEASED).startswith('whole') and 'no checksum' not in check_weights(RELEASED)
    Image.open(sample_photos()/'china.jpg').convert('L').save(tmp_path/'old.png')
    out = run('colorize', 'old.png', '-o', 'new.png', cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    made, grey = np.asarray(Image.open(tmp_path/'new.png')), np.asarray(Image.open(tmp_path/'old.png'), int)
    assert abs(luma(made) - grey).max() <= 1
    sky = made[:made.shape[0]//6].reshape(-1, 3).mean(0)
    assert sky[2] > sky[0] + 5                                   # blue


PLACES = dict(                                                         # of sample photos: boxes, and the hues in degrees and chroma that may be there
    skin=([('astronaut.png', (200, 60, 250, 115)), ('grace_hopper.jpg', (190, 170, 290, 270))], (40, 90), (5, 35)),
    sky=([('china.jpg', (250, 20, 600, 120)), ('grace_hopper.jpg', (400, 20, 500, 150))], (-130, -60), (2, 45)),
    foliage=([('china.jpg', (340, 340, 620, 420)), ('china.jpg', (20, 310, 200, 400))], (60, 130), (4, 30)),
    dark=([('rocket.jpg', (20, 20, 120, 120)), ('flower.jpg', (10, 300, 150, 400)), ('grace_hopper.jpg', (120, 450, 200, 550))], (-180, 180), (0, 10)))


@pytest.mark.parametrize('place', PLACES)
def test_released_colours_stay_in_their_bounds(place):
    if not RELEASED.exists(): pytest.skip('no released weights beside this package: it is not a clone')
    from skimage.color import rgb2lab
    boxes, hues, chromas = PLACES[place]
    colorizer = Colorizer.load(device='cpu')
    for name, box in boxes:
        made = colorizer(Image.open(sample_photos()/name).convert('L'))
        a, b = np.moveaxis(rgb2lab(np.asarray(made.crop(box)) / 255)[..., 1:], 2, 0)
        assert hues[0] <= np.degrees(np.arctan2(b.mean(), a.mean())) <= hues[1], name
        chroma = np.hypot(a, b)
        assert chromas[0] <= chroma.mean() <= chromas[1] and np.percentile(chroma, 95) <= 2 * chromas[1], name    # no blotches


def test_no_weights_no_picture(monkeypatch, tmp_path):
    monkeypatch.setattr('deoldify_lite.colorizer.RELEASED', tmp_path/'none.safetensors')
    with pytest.raises(UserError, match='no released weights'): Colorizer.load()


def test_onnx_without_torch_gives_the_same_answer(model, photo, tmp_path, float32):
    photo.save(tmp_path/'in.png')
    code = ("import sys\nfrom PIL import Image\nfrom deoldify_lite.colorizer import Colorizer\n"
            f"Colorizer.load({str(model.with_suffix('.onnx'))!r}).colorize_file('in.png', 'onnx.png')\n"
            "print([m for m in ('torch', 'fastai', 'torchvision', 'matplotlib') if m in sys.modules])")
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert out.stdout.strip() == '[]', out.stdout + out.stderr
    torch_answer = np.asarray(Colorizer.load(model, 'cpu')(photo), int)
    assert np.abs(np.asarray(Image.open(tmp_path/'onnx.png'), int) - torch_answer).max() <= 1
    (tmp_path/'page.onnx').write_text('<html>')
    fails('is no ONNX file', 'colorize', 'in.png', '-o', 'x.png', '--model', 'page.onnx', cwd=tmp_path)


@pytest.mark.parametrize('options', [[], ['--contact-sheet'], ['--compare', '--label']], ids=str)
def test_a_small_server_needs_no_torch(model, photo, tmp_path, options):
    photo.save(tmp_path/'in.png')
    command = ['deoldify-lite', 'colorize', 'in.png', '-o', 'out', '--model', str(model.with_suffix('.onnx')), *options]
    blocked = ('torch', 'fastai', 'torchvision', 'matplotlib', 'kornia', 'skimage', 'sklearn', 'pandas', 'scipy', 'safetensors', 'cv2')
    code = f'import sys\nsys.modules.update(dict.fromkeys({blocked!r}))\nsys.argv = {command!r}\nfrom deoldify_lite.cli import main\nmain()'
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, env=os.environ | dict(TQDM_DISABLE=''))
    assert out.returncode == 0 and len(list((tmp_path/'out').iterdir())) == 1, out.stdout + out.stderr
    assert re.search(r'100%.* 1/1 \[\d\d:\d\d<\d\d:\d\d, .* photos', out.stderr), out.stderr       # how many are done, time left, and the rate


def test_an_onnx_file_runs_on_the_processor_where_that_is_asked_for(model, monkeypatch):
    import onnxruntime
    asked, real = [], onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider', 'AzureExecutionProvider'])
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda path, providers: [asked.append(providers), real(path, providers=['CPUExecutionProvider'])][1])
    for device in 'cpu', 'auto': Colorizer.load(model.with_suffix('.onnx'), device)
    assert asked == [['CPUExecutionProvider'], ['CPUExecutionProvider', 'AzureExecutionProvider']]


def test_inference_imports_neither_fastai_nor_torchvision(model, photo, tmp_path):
    photo.save(tmp_path/'in.png')
    code = f"import sys\nsys.argv = ['deoldify-lite', 'colorize', 'in.png', '-o', 'out.png', '--model', {str(model)!r}]\nfrom deoldify_lite.cli import main\n" \
           "try: main()\nfinally: print([m for m in ('fastai', 'torchvision', 'matplotlib', 'skimage') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0 and (tmp_path/'out.png').exists() and out.stdout.strip().endswith('[]'), out.stdout + out.stderr


WATCH = """import os, subprocess, sys, time
began, process = time.perf_counter(), subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, time.perf_counter() - began, usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 2**30)"""


def used(*command):
    "Seconds and GiB that a Python process takes. A small process starts it: Linux counts the memory of the one that does, here pytest's, as its own."
    out = subprocess.run([sys.executable, '-c', WATCH, sys.executable, *map(str, command)], capture_output=True, text=True, check=True)
    status, seconds, memory = map(float, out.stdout.split())
    assert status == 0
    return seconds, memory


def test_a_large_photo_takes_little_time_and_memory(tmp_path):
    "12 megapixels with the released weights, beside what starting torch, reading and writing take by themselves; `tests/bench_use.py` has the seconds."
    Image.open(sample_photos()/'china.jpg').convert('RGB').resize((4000, 3000)).save(tmp_path/'in.jpg')
    least = 'import sys, torch; from PIL import Image; y = Image.open(sys.argv[1]).convert("L"); Image.merge("RGB", [y] * 3).save(sys.argv[2])'
    colorize = '-m', 'deoldify_lite.cli', 'colorize', '--device', 'cpu', '--overwrite', tmp_path/'in.jpg', '-o', tmp_path/'out.jpg'
    rounds = [(used('-c', least, tmp_path/'in.jpg', tmp_path/'grey.jpg')[0], *used(*colorize)) for _ in range(3)]
    alone, took, memory = (min(column) for column in zip(*rounds))           # the best of them: other tests run at the same time
    assert took < 4 * alone and memory < 1.5, (alone, took, memory)


def test_memory_is_flat_over_many_photos(tmp_path):
    photo = Image.open(sample_photos()/'china.jpg').convert('RGB').resize((800, 600))
    peaks = []
    for n in 40, 400:
        (tmp_path/str(n)).mkdir()
        for i in range(n): photo.save(tmp_path/str(n)/f'{i}.jpg', comment=f'{i}')
        peaks.append(used('-m', 'deoldify_lite.cli', 'colorize', '--device', 'cpu', tmp_path/str(n), '-o', tmp_path/f'out {n}')[1])
        assert len(list((tmp_path/f'out {n}').iterdir())) == n
    assert peaks[1] < 1.1 * peaks[0], peaks

"""The page that colorizes in its visitor's browser, beside what Python makes of the same photos."""
import base64
import io
import re
import shutil
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import asked, wait_for
from PIL import Image, ImageCms, ImageOps
from test_cli import fails, run

from deoldify_lite.browser import PAGE
from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import RELEASED
from deoldify_lite.photos import find_data


@contextmanager
def served(folder):
    "The address of a folder."
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "A folder with the page of the released weights, and where it is served."
    folder = tmp_path_factory.mktemp('site')
    run('page', folder, cwd=folder)
    with served(folder) as url: yield folder, url


@pytest.fixture(scope='module')
def runtime(site, tmp_path_factory):
    "onnxruntime-web beside the page, in the version that it asks for."
    version, temp = re.search(r'onnxruntime-web@([\d.]+)', PAGE.read_text())[1], tmp_path_factory.mktemp('npm')
    try: subprocess.run(['npm', 'pack', f'onnxruntime-web@{version}'], cwd=temp, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError): pytest.skip('needs npm and its registry')
    (site[0]/'ort').mkdir()
    with tarfile.open(next(temp.glob('*.tgz'))) as tar:
        for name in 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm':
            with open(site[0]/'ort'/name, 'wb') as f: shutil.copyfileobj(tar.extractfile(f'package/dist/{name}'), f)


def saved(browser):
    "The picture behind the link."
    data = browser.execute_async_script(
        "const done = arguments[0]; fetch(document.getElementById('save').href).then(r => r.blob()).then(b => {"
        "const reader = new FileReader(); reader.onload = () => done(reader.result); reader.readAsDataURL(b) })")
    return Image.open(io.BytesIO(base64.b64decode(data.split(',')[1])))


def drop(browser, photo):
    browser.find_element('id', 'photo').send_keys(str(photo))
    wait_for(browser, '#said', 'Done', 120)
    wait_for(browser, '#save[href^=blob]')


def test_a_page_is_made_once(site, tmp_path):
    fails('has index.html and generator.onnx and generator.json already', 'page', site[0], cwd=tmp_path)
    fails('There is no file none', 'page', 'new', '--model', 'none', cwd=tmp_path)
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'generator.onnx').write_text('mine')
    fails('has generator.onnx already', 'page', 'run', cwd=tmp_path)
    assert not (tmp_path/'new').exists() and (tmp_path/'run'/'generator.onnx').read_text() == 'mine'


def test_the_browser_answers_as_python(browser, site, runtime, tmp_path):
    colorizer = Colorizer.load(RELEASED, 'cpu')
    turned = Image.open(find_data('sample')/'china.jpg').crop((0, 0, 301, 200))
    exif = Image.Exif()
    exif[0x0112] = 6                                                     # a camera on its side
    turned.save(tmp_path/'turned.jpg', exif=exif, quality=95)
    clear = Image.open(find_data('sample')/'coffee.png').convert('RGB').resize((150, 100))
    clear.putalpha(Image.linear_gradient('L').resize(clear.size).point(lambda v: 155 + v * 100 // 255))
    clear.save(tmp_path/'clear.png')
    large = Image.open(find_data('sample')/'flower.jpg').convert('L').resize((1501, 1003)).point(lambda v: v // 4)
    ImageOps.expand(large, 40, 255).save(tmp_path/'border.png')          # dark, with a white border, and many times what the network looks at
    clear.convert('RGB').save(tmp_path/'tagged.jpg', icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(), quality=95)
    browser.get(site[1])
    asked(browser)
    for name, apart, colour in ('turned.jpg', 2, 20), ('border.png', 2, 10), ('tagged.jpg', 2, 20), ('clear.png', 5, 20):
        # a canvas keeps colours times their transparency, rounded
        drop(browser, tmp_path/name)
        ours, theirs = (np.asarray(im.convert('RGBA'), int) for im in (saved(browser), colorizer(Image.open(tmp_path/name))))
        assert ours.shape == theirs.shape and (ours[..., 3] == theirs[..., 3]).all()
        assert np.abs(ours - theirs).max() <= apart and np.ptp(theirs[..., :3], axis=2).max() > colour
    said = asked(browser)
    assert {method for method, _ in said} == {'GET'} and all(url.startswith(site[1]) for _, url in said)   # no photo leaves


def test_dials_and_files_that_are_no_photos(browser, site, runtime, tmp_path):
    photo = Image.open(find_data('sample')/'coffee.png').convert('L').resize((90, 60))
    photo.save(tmp_path/'old.png')
    (tmp_path/'no photo.png').write_text('<html>')
    browser.get(site[1])
    drop(browser, tmp_path/'old.png')
    for dial, value in ('saturation', 0), ('split', 25):
        browser.execute_script("const [dial, value] = arguments; dial.value = value; for (const e of ['input', 'change']) dial.dispatchEvent(new Event(e))",
                               browser.find_element('id', dial), value)
    wait_for(browser, '#save[data-saturation="0"]')
    assert np.array_equal(np.asarray(saved(browser).convert('RGB')), np.asarray(photo.convert('RGB')))
    assert '75%' in browser.find_element('id', 'before').get_attribute('style')
    browser.find_element('id', 'photo').send_keys(str(tmp_path/'no photo.png'))
    wait_for(browser, '#said', 'no photo.png cannot be read as a photo')


def test_what_is_missing_is_told(browser, tmp_path):
    photo = str(find_data('sample')/'coffee.png')
    browser.get(PAGE.as_uri())
    browser.find_element('id', 'photo').send_keys(photo)
    wait_for(browser, '#said', 'has to be on a web server')
    shutil.copy(PAGE, tmp_path/'index.html')
    (tmp_path/'generator.json').write_text('{"size": 64}')
    with served(tmp_path) as url:                                        # neither a runtime nor, where there is a network, weights
        browser.get(url)
        browser.find_element('id', 'photo').send_keys(photo)
        wait_for(browser, '#said', 'see whether cdn.jsdelivr.net can be reached')
    assert [u for _, u in asked(browser) if 'jsdelivr.net/npm/onnxruntime-web@' in u]

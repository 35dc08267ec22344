"""Page and service as people meet them: a process of their own, real HTTP, a real browser where there is one."""
import asyncio
import io
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import asked, wait_for
from PIL import Image
from test_cli import fails
from test_colorize import ARGS, bomb, model, photo  # noqa: F401

from deoldify_lite.app import Door
from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import UserError
from deoldify_lite.export import load_generator, save_generator
from deoldify_lite.service import Limits, Service, api

httpx = pytest.importorskip('httpx')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def opened(temp, *options):
    "A page whose temporary files are in `temp`: its address and process."
    port = free_port()
    process = subprocess.Popen([sys.executable, '-m', 'deoldify_lite.cli', 'app', '--device', 'cpu', '--port', str(port), *map(str, options)],
                               env=os.environ | dict(TMPDIR=str(temp)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f'http://127.0.0.1:{port}'
    for _ in range(300):
        try: urllib.request.urlopen(f'{url}/api/health', timeout=2).read(); break
        except (urllib.error.URLError, ConnectionError, TimeoutError): time.sleep(.2)
    else:
        process.kill()
        pytest.fail(process.communicate()[0])
    process.temp = temp
    return url, process


@pytest.fixture(scope='module')
def address(model, tmp_path_factory):  # noqa: F811
    "Where a service with small limits listens; its folder of temporary files must be empty at the end."
    temp, other = tmp_path_factory.mktemp('temp'), model.with_name('other.safetensors')
    save_generator(load_generator(model)[0], other, 'unet', ARGS, 96)
    url, process = opened(temp, '--model', model, '--model', other, '--megabytes', 2, '--max-pixels', 1_000_000, '--seconds', 5, '--queue', 8)
    yield url, process
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert 'Traceback' not in said, said
    assert [f for f in temp.rglob('*') if f.is_file()] == []


def png(im):
    data = io.BytesIO()
    im.save(data, 'PNG')
    return data.getvalue()


def test_health_and_description(address):
    url, _ = address
    health = httpx.get(f'{url}/api/health').json()
    assert health['status'] == 'ok' and health['models'] == ['small', 'other'] and health['device'] == 'cpu'
    described = httpx.get(f'{url}/openapi.json').json()['paths']['/api/colorize']['post']
    fields = httpx.get(f'{url}/openapi.json').json()['components']['schemas']
    assert described['summary'] and {'photo', 'model', 'render_factor', 'saturation', 'format'} <= set(next(
        s for s in fields.values() if 'photo' in s.get('properties', {}))['properties'])


def test_answers_are_the_colorizers(address, model, photo):  # noqa: F811
    url, process = address
    files = lambda: {f for f in process.temp.rglob('*') if f.is_file()}
    before = files()
    asked = httpx.post(f'{url}/api/colorize', files=dict(photo=png(photo)), data=dict(saturation=.7, render_factor=6))
    assert asked.status_code == 200 and asked.headers['content-type'] == 'image/png'
    assert files() == before                                            # nothing of it stays, even for a while
    ours = Colorizer.load(model, 'cpu')(photo, 6, .7)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(asked.content))), np.asarray(ours))


@pytest.mark.skipif(not shutil.which('curl'), reason='needs curl')
def test_the_call_of_the_readme(address, photo, tmp_path):  # noqa: F811
    url, _ = address
    photo.save(tmp_path/'old.jpg')
    text = (Path(__file__).parents[1]/'README.md').read_text()
    call, more = [next(re.finditer(words, text))[1] for words in (r'`(curl [^`]+)`', r'`(-F render_factor[^`]+)`')]
    for options, kind in ('', 'PNG'), (more.replace('NAME', 'other'), 'JPEG'):
        subprocess.run(shlex.split(f'{call} -sf {options}'.replace('http://127.0.0.1:7860', url)), cwd=tmp_path, check=True)
        with Image.open(tmp_path/'new.png') as im: assert im.format == kind and im.size[1] == photo.height
        assert (im.width > photo.width) == ('compare' in options)


@pytest.mark.parametrize('code, says, files, data', [
    (422, 'cannot be read as a photo', dict(photo=b'<html>no photo</html>'), {}),
    (422, 'cannot be read as a photo', dict(photo=('x.png', b'MZ\x90\0' * 50)), {}),
    (422, 'choose small or other', 'photo', dict(model='../../etc/passwd')),
    (422, 'choose png', 'photo', dict(format='php')),
    (422, 'greater than or equal to 2', 'photo', dict(render_factor=1)),
    (422, 'less than or equal to 3', 'photo', dict(saturation='nan')),
    (422, 'Field required', dict(other=b'x'), {}),
    (413, 'At most 2 MB', dict(photo=bytes(3 << 20)), {}),
    (422, 'more than 1,000,000', 'bomb', {}),
    (422, 'has 16,383 pixels a side at most, and this would have 17,000', 'wide', dict(format='webp')),
    (422, 'this would have 66,000', 'wider', dict(format='jpg', compare=True)),
], ids=lambda v: v if isinstance(v, str) else '')
def test_refusals_are_one_sentence(address, photo, tmp_path, code, says, files, data):  # noqa: F811
    url, _ = address
    bomb(tmp_path/'bomb.png')
    if isinstance(files, str):
        files = dict(photo=dict(photo=lambda: png(photo), bomb=(tmp_path/'bomb.png').read_bytes,
                                wide=lambda: png(Image.new('L', (17_000, 2))), wider=lambda: png(Image.new('L', (33_000, 2))))[files]())
    answer = httpx.post(f'{url}/api/colorize', files=files, data=data)
    assert answer.status_code == code and says in answer.text and 'Traceback' not in answer.text, answer.text
    assert '/tmp' not in answer.text


def test_a_body_longer_than_it_says_it_is(address):
    url, _ = address
    head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
    answer = httpx.post(f'{url}/api/colorize', content=(head + bytes(1 << 20) for _ in range(8)), headers={'Content-Type': 'multipart/form-data; boundary=x'})
    assert answer.status_code == 413


@pytest.mark.parametrize('pause', [10, .05])
def test_a_body_that_does_not_arrive_gives_its_place_back(monkeypatch, pause):
    monkeypatch.setattr('deoldify_lite.service.PATIENCE', .3)
    service = Service(dict(a=Colorizer(None, 64, run=lambda x: x)), Limits(queue=1))
    said, messages = [], iter([dict(type='http.request', body=b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n', more_body=True)])
    async def receive():
        if (first := next(messages, None)): return first
        await asyncio.sleep(pause)                                   # for ever, or byte by byte
        return dict(type='http.request', body=b'x', more_body=True)
    async def send(message): said.append(message)
    scope = dict(type='http', method='POST', path='/api/colorize', raw_path=b'/api/colorize', query_string=b'', root_path='', scheme='http', http_version='1.1',
                 headers=[(b'content-type', b'multipart/form-data; boundary=x')], server=('a', 1), client=('b', 2))
    asyncio.run(asyncio.wait_for(api(service)(scope, receive, send), 5))
    assert said[0]['status'] == 408 and b'did not arrive within 0.3 s' in said[1]['body'] and len(said) == 2
    with service.place(): pass


def test_no_address_and_no_foreign_path(address):
    url, _ = address
    join = lambda path: httpx.post(f'{url}/gradio_api/queue/join', json=dict(data=[[dict(path=path, meta=dict(_type='gradio.FileData'))], 'small', 4, 1, False],
                                                                             fn_index=1, session_hash='abc')).status_code
    for path in 'http://127.0.0.1:1/x.png', '/etc/passwd', 'secret.png', f'{tempfile.gettempdir()}/../etc/passwd': assert join(path) == 400, path
    for where in '/gradio_api/proxy=http://127.0.0.1:1/x', '/gradio_api/file=http://127.0.0.1:1/x', '/docs', '/monitoring', '/gradio_api/vibe-code/':
        assert httpx.get(url + where).status_code == 404, where
    assert httpx.get(f'{url}/gradio_api/file=/etc/passwd').status_code == 403
    assert httpx.get(f'{url}/api/health', headers=dict(Host='evil.example')).status_code == 400
    for site, code in ('cross-site', 403), ('same-site', 403), ('same-origin', 422), ('none', 422):             # as browsers tell
        for path in '/api/colorize', '/gradio_api/queue/join':
            asked = httpx.post(url + path, headers={'Sec-Fetch-Site': site}, json={})
            assert asked.status_code == code, (site, path, asked.text)
    for origin, code in ('http://evil.example', 403), ('null', 403), (url, 422):                               # as they tell without HTTPS
        assert httpx.post(f'{url}/api/colorize', headers=dict(Origin=origin)).status_code == code, origin


def test_uploads_of_the_page_are_files_and_nothing_else(address, photo):  # noqa: F811
    url, process = address
    upload = lambda **kwargs: httpx.post(f'{url}/gradio_api/upload', timeout=60, **kwargs)
    path, = upload(files=dict(files=('a.png', png(photo))), params=dict(upload_id='abc')).raise_for_status().json()
    assert path.endswith('a.png')
    assert 'done' in httpx.get(f'{url}/gradio_api/upload_progress', params=dict(upload_id='abc'), timeout=10).text     # the page's bar
    before = memory_of(process) if sys.platform == 'linux' else 0
    big = b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + bytes(30 << 20) + b'\r\n--x--\r\n'
    form = {'Content-Type': 'multipart/form-data; boundary=x'}
    for content, headers in (big, form), (b'no form', form):
        answer = upload(content=content, headers=headers)
        assert answer.status_code == 400 and 'Only files are taken here' in answer.text, answer.text
    if sys.platform == 'linux': assert memory_of(process) < before + 15       # MiB: the 30 of the field were not kept
    assert upload(content=iter([b'--x']), headers=form).status_code == 411
    tower = httpx.post(f'{url}/gradio_api/queue/join', content=b'[' * 200_000, headers={'Content-Type': 'application/json'})
    assert tower.status_code == 400


def test_the_disk_is_not_filled_by_uploads_at_the_same_time(tmp_path, monkeypatch):
    monkeypatch.setattr('deoldify_lite.app.FULL', 100)
    said, most = [], []
    async def app(scope, receive, send):
        most.append(door.arriving)
        await asyncio.sleep(.1)
    async def send(message): said.append(message.get('status'))
    door = Door(app, tmp_path)
    scope = dict(type='http', method='POST', path='/gradio_api/upload', headers=[(b'content-length', b'40')])
    async def both(): await asyncio.gather(*[door(scope, None, send) for _ in range(3)])
    asyncio.run(both())
    assert most == [40, 80] and said[0] == 503 and door.arriving == 0


def test_connections_that_nobody_reads_from_are_limited(address):
    url, _ = address
    host, port = url.removeprefix('http://').split(':')
    held = [socket.create_connection((host, int(port))) for _ in range(100)]
    try: assert httpx.get(f'{url}/api/health', timeout=60).status_code == 503
    finally:
        for s in held: s.close()
    for _ in range(50):
        if httpx.get(f'{url}/api/health', timeout=60).status_code == 200: return
        time.sleep(.1)
    pytest.fail('connections were closed, and it still refuses')


def memory_of(process, what='VmRSS'): return int(re.search(rf'{what}:\s+(\d+)', Path(f'/proc/{process.pid}/status').read_text())[1]) / 2**10


def test_eight_clients_two_hundred_photos(address, photo):  # noqa: F811
    url, process = address
    good = [png(photo.rotate(i)) for i in range(10)]
    bad = [b'<html>', good[0][:300], b'']
    def client(k):
        seen = []
        with httpx.Client(timeout=60) as c:
            for i in range(25):
                wrong = (i + k) % 5 == 4
                start, answer = time.perf_counter(), c.post(f'{url}/api/colorize', files=dict(photo=('p', bad[i % 3] if wrong else good[i % 10])))
                seen.append((wrong, answer.status_code, time.perf_counter() - start))
        return seen
    def load():
        with ThreadPoolExecutor(8) as pool: return sum(pool.map(client, range(8)), [])
    load()
    before = memory_of(process) if sys.platform == 'linux' else 0
    seen = load()
    assert len(seen) == 200 and {(wrong, code) for wrong, code, _ in seen} == {(False, 200), (True, 422)}
    if sys.platform == 'linux': assert memory_of(process) < before + 40       # MiB


def test_too_many_at_once_are_told_so(address, photo):  # noqa: F811
    url, _ = address
    slow = png(photo.resize((1000, 900)))
    ask = lambda _: httpx.post(f'{url}/api/colorize', files=dict(photo=slow), timeout=60)
    with ThreadPoolExecutor(40) as pool: answers = list(pool.map(ask, range(40)))
    assert {a.status_code for a in answers} == {200, 503}
    assert {(a.headers['retry-after'], a.json()['detail'][:10]) for a in answers if a.status_code == 503} == {('5', '8 requests')}


def test_port_in_use(address, model):  # noqa: F811
    fails('cannot be used', 'app', '--model', model, '--port', address[0].rsplit(':', 1)[1], cwd=model.parent)


def fetched(link):
    with urllib.request.urlopen(link.get_attribute('href')) as f: return f.read()


def test_a_photo_in_the_browser(browser, address, model, photo, tmp_path):  # noqa: F811
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait
    photo.save(tmp_path/'old photo.png')
    browser.get(address[0])
    wait_for(browser, '#photos input[type=file]').send_keys(str(tmp_path/'old photo.png'))
    wait_for(browser, '#photos', 'old photo')
    browser.find_element('id', 'colorize').click()
    link = wait_for(browser, '#results a')
    slider = wait_for(browser, '#before-after .inner')
    styles = lambda: [e.get_attribute('style') for e in browser.find_elements('css selector', '#before-after [style]')]
    before = styles()
    ActionChains(browser).click_and_hold(slider).move_by_offset(-120, 0).release().perform()
    WebDriverWait(browser, 10).until(lambda b: styles() != before)
    browser.save_screenshot(str(tmp_path/'page.png'))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(fetched(link)))), np.asarray(Colorizer.load(model, 'cpu')(photo)))
    assert not {url for _, url in asked(browser) if not url.startswith(address[0])}   # nothing from the internet


def test_several_photos_one_of_them_broken(browser, address, photo, tmp_path):  # noqa: F811
    for i in range(3): photo.rotate(90 * i, expand=True).save(tmp_path/f'{i}.png')
    (tmp_path/'broken.png').write_bytes(b'no photo')
    browser.get(address[0])
    wait_for(browser, '#photos input[type=file]').send_keys('\n'.join(str(tmp_path/f'{n}.png') for n in ('0', '1', 'broken', '2')))
    wait_for(browser, '#photos', 'broken')
    browser.find_element('id', 'colorize').click()
    wait_for(browser, 'body', 'broken.png: The upload cannot be read as a photo')
    wait_for(browser, '#results', '2-colour')
    assert len(browser.find_elements('css selector', '#results a')) == 3
    browser.save_screenshot(str(tmp_path/'several.png'))


def test_an_example_and_another_model(browser, address, model):  # noqa: F811
    from selenium.webdriver.support.ui import WebDriverWait
    factor = lambda: browser.find_element('css selector', 'input[type=number]').get_attribute('value')
    browser.get(address[0])
    wait_for(browser, 'button', 'china.jpg').click()
    example = Image.open(io.BytesIO(fetched(wait_for(browser, '#photos a'))))
    assert factor() == '4'                                              # the first model's
    wait_for(browser, 'input[role=combobox]').click()
    wait_for(browser, '[role=option]', 'other').click()
    WebDriverWait(browser, 10).until(lambda _: factor() == '6')
    browser.find_element('id', 'colorize').click()
    made = Image.open(io.BytesIO(fetched(wait_for(browser, '#results a'))))
    assert np.array_equal(np.asarray(made), np.asarray(Colorizer.load(model.with_name('other.safetensors'), 'cpu')(example)))


@pytest.mark.parametrize('subtitles, suffix', [(False, '.mp4'), (True, '.mkv')])
def test_a_film_whose_subtitles_no_mp4_can_hold(tmp_path, monkeypatch, subtitles, suffix):
    gradio = pytest.importorskip('gradio')
    from test_video import clip
    notes = []
    monkeypatch.setattr(gradio, 'Warning', notes.append)

    from deoldify_lite.app import _colorize_film
    (tmp_path/'files').mkdir()
    film = clip(tmp_path/'old.mkv', 4, subtitles=subtitles)
    made, _, said = _colorize_film(Service(dict(a=Colorizer(None, 64, run=lambda x: x)), Limits()), tmp_path/'files', film, '', 4, 1., False)
    assert Path(made).name == f'old-colour{suffix}' and said.startswith('4 frames')
    assert notes == ['old.mkv came out nearly grey: try another render factor, or more saturation.']


@pytest.mark.parametrize('late', [False, True])
def test_a_film_is_made_once_whatever_can_hold_it(tmp_path, monkeypatch, late):
    "Only another container is tried anew; and where the first one fails at its end, the pictures are kept."
    pytest.importorskip('gradio')
    from test_video import clip, flickering

    from deoldify_lite import app, video
    film, seen, real = clip(tmp_path/'old.mp4', 12, sound=False), [], video._join
    def network(x):
        seen.append(len(x))
        return flickering(x)
    service, folder = Service(dict(a=Colorizer(None, 64, run=network)), Limits(seconds=1)), tmp_path/'made'
    def join(src, parts, dst, *args):
        if late and dst.suffix == '.mp4' and seen: raise video.WrongContainer('.mp4 files cannot hold this.')
        return real(src, parts, dst, *args)
    monkeypatch.setattr(video, '_join', join)
    made_at, made = app._film_made(service, film, folder, '', 4, 1.)
    assert made_at.suffix == ('.mkv' if late else '.mp4') and made['frames'] == 12 and sum(seen) == 12 and not list(folder.glob('.*'))
    tries = []
    monkeypatch.setattr(Service, 'film', lambda *args: tries.append(1) or Service.model(service, 'none'))
    with pytest.raises(UserError, match="no model 'none'"): app._film_made(service, film, tmp_path/'again', '', 4, 1.)
    assert len(tries) == 1


def drop_a_film(browser, url, photo, path, frames):  # noqa: F811
    "Put a film of ten frames a second on the page and press the button."
    import av
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('libx264', rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 106, 'yuv420p'
        for _ in range(frames): out.mux(stream.encode(av.VideoFrame.from_image(photo.crop((0, 0, 160, 106)).convert('L'))))
        out.mux(stream.encode(None))
    browser.get(url)
    wait_for(browser, 'button[role=tab]', 'Film').click()
    wait_for(browser, '#film input[type=file]').send_keys(str(path))
    wait_for(browser, '#film', path.stem)
    browser.find_element('id', 'colorize-film').click()


def test_a_film_that_is_too_long(browser, address, photo, tmp_path):  # noqa: F811
    drop_a_film(browser, address[0], photo, tmp_path/'long.mp4', 70)
    wait_for(browser, 'body', 'The film is 7 s long; at most 5 s are taken here.')


def test_a_film_in_the_browser(browser, address, photo, tmp_path):  # noqa: F811
    import av
    drop_a_film(browser, address[0], photo, tmp_path/'old.mp4', 8)
    wait_for(browser, 'body', '8 frames. Flicker')
    with av.open(io.BytesIO(fetched(wait_for(browser, '#film-result a')))) as film: assert len(list(film.decode(video=0))) == 8
    browser.save_screenshot(str(tmp_path/'film.png'))


def test_terminated_with_a_page_open(model, tmp_path):  # noqa: F811
    "An open page listens for ever, and is not waited for; what was uploaded goes."
    url, process = opened(tmp_path, '--model', model)
    assert httpx.post(f'{url}/gradio_api/upload', files=dict(files=b'a photo')).status_code == 200
    assert b'a photo' in [f.read_bytes() for f in tmp_path.rglob('*') if f.is_file()]
    with httpx.stream('GET', f'{url}/gradio_api/heartbeat/page', timeout=60) as listening:
        assert listening.status_code == 200
        process.terminate()
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and said.count('\n') == 1, said              # the line that says where it is
    assert list(tmp_path.iterdir()) == []

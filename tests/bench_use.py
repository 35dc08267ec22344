"""`make bench`, second half: seconds and memory of what people do with a trained generator, each command in a process of its own.

The network is that of recipe `deoldify` (ResNet-34) with random weights, which do not change the speed; `--model` takes another.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles

import httpx
import numpy as np
import torch
from bench import RECIPE, ROWS, alternate, rate, ratio, show, timed, title
from PIL import Image
from test_app import free_port, memory_of

from deoldify_lite.colorizer import Colorizer, shrink
from deoldify_lite.core import STD
from deoldify_lite.deoldify import ARCHITECTURES, RENDER_FACTOR
from deoldify_lite.export import export_onnx, load_generator, pack, save_generator
from deoldify_lite.generator import generators
from deoldify_lite.photos import find_data
from deoldify_lite.video import colorize_video

RUN = """import atexit, sys
atexit.register(lambda: print('peak', open('/proc/self/status').read().split('VmHWM:')[1].split()[0]))
from deoldify_lite.cli import main
main()"""


def command(*args):
    "Seconds and GiB at most of `deoldify-lite ARGS`."
    began = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', RUN, *map(str, args)], capture_output=True, text=True)
    if done.returncode: raise SystemExit(f'{args} failed:\n{done.stderr[-2000:]}')
    return time.perf_counter() - began, int(re.search(r'peak (\d+)', done.stdout)[1]) / 2**20


def photo(megapixels, path):
    "A JPEG of a real photo, 4 : 3, enlarged."
    wide = round((megapixels * 1e6 * 4 / 3)**.5)
    Image.open(find_data('sample')/'china.jpg').convert('L').resize((wide, wide * 3 // 4), Image.BICUBIC).save(path, quality=92)
    return path


def files(a, folder):
    "The generator as safetensors, packed, and as ONNX."
    model = a.model or folder/'lite.safetensors'
    if not a.model: save_generator(generators[RECIPE.generator](**RECIPE.generator_args), model, RECIPE.generator, RECIPE.generator_args, 224)
    small, onnx = folder/'packed.safetensors', folder/'lite.onnx'
    pack(model, small)
    generator, header = load_generator(model)
    export_onnx(generator, onnx, header['size'])
    return dict(safetensors=model, packed=small, onnx=onnx)


def runtimes(a, models):
    title('files and runtimes; the network alone, batch 4')
    colorizers = {k: Colorizer.load(f) for k, f in models.items()}
    small = np.stack([shrink(np.asarray(Image.open(photo(.3, a.folder/'p.jpg')).convert('L')), colorizers['onnx'].size)] * 4)
    took = alternate({k: timed(lambda c=c: c.chroma(small)) for k, c in colorizers.items()}, a.rounds)
    said = colorizers['safetensors'].chroma(small)
    for k, c in colorizers.items():
        apart = abs(c.chroma(small) - said).max() * 255
        show(k, models[k].stat().st_size / 2**20, 'MiB', f'{rate(took, k, 4):.1f} photos/s; chroma differs by {apart:.3f} of 255 at most')


def imported(a, models, side=16 * RENDER_FACTOR):
    title(f"DeOldify's artistic network, squares of {side} pixels")
    torch.manual_seed(0)
    kind = ARCHITECTURES['artistic']
    generator = generators['unet'](**kind)
    generator.train()(torch.randn(2, 3, 64, 64))                     # norms that have seen something
    save_generator(generator.eval(), a.folder/'artistic.safetensors', 'unet', kind, side)
    x = torch.randn(1, 3, side, side).clamp(-2, 2)
    said = {}
    def as_published():
        with torch.inference_mode(): said['published'] = generator(x).numpy()
    ours = Colorizer.load(a.folder/'artistic.safetensors', 'cpu')
    def as_imported(): said['imported'] = ours.run(x.numpy())
    took = alternate(dict(published=timed(as_published), imported=timed(as_imported)), a.rounds)
    apart = (abs(said['published'] - said['imported']).max((0, 2, 3)) * STD).max() * 255
    show('float32, as published', median(took['published']), 'seconds')
    note = f"{ratio(took, 'imported', 'published'):.1f} times as fast (issue: 4), differs by {apart:.3f} of 255 at most (issue: 2)"
    show('imported', median(took['imported']), 'seconds', note)
    _, gib = command('colorize', photo(1, a.folder/'1mp.jpg'), '-o', a.folder/'imported.jpg', '--model', a.folder/'artistic.safetensors', '--overwrite')
    show('memory of the whole command', gib, 'GiB', 'at most (issue: 1.5 GB)')


def one(a, models):
    title('one photo of 12 megapixels, from command to file')
    src = photo(12, a.folder/'12mp.jpg')
    for k in 'safetensors', 'onnx':
        took = [command('colorize', src, '-o', a.folder/f'{k}.jpg', '--model', models[k], '--overwrite') for _ in range(a.rounds)]
        show(k, median(s for s, _ in took), 'seconds', f"{max(m for _, m in took):.2f} GiB (issue: {'4 s, 1.5 GB' if k == 'safetensors' else '2 s'})")


def many(a, models):
    title('photos of 1 megapixel, one command')
    src = photo(1, a.folder/'1mp.jpg')
    for n in (4, 8) if a.quick else (100, 500):
        (a.folder/f'in{n}').mkdir()
        for i in range(n): (a.folder/f'in{n}'/f'{i:03}.jpg').hardlink_to(src)
        seconds, gib = command('colorize', a.folder/f'in{n}', '-o', a.folder/f'out{n}', '--model', models['safetensors'])
        show(f'{n} photos', n / seconds, 'photos/s', f'{gib:.2f} GiB at most (issue: 1.5 photos/s; memory flat)')


def film(a, models):
    from test_video import clip
    n = 40 if a.quick else 200
    title(f'a film of {n} frames, 640 x 480: a pan, a cut and a zoom, with grain')
    src = clip(a.folder/'film.mp4', n, w=640, h=480, noise=5)
    began = time.perf_counter()
    made = colorize_video(Colorizer.load(models['safetensors']), src, a.folder/'colour.mp4', progress=False)
    show('speed', n / (time.perf_counter() - began), 'frames/s')
    before, after = made['flicker']
    show('flicker of the network', before, 'of 255')
    show('steadied', after, 'of 255', f'{after / before:.2f} of it (issue: half)')


def service(a, models, clients=8):
    each = 3 if a.quick else 25
    title(f'the service: {clients} clients at once, {each} photos of 1 megapixel each, and for five of them a broken one')
    port = free_port()
    process = subprocess.Popen([sys.executable, '-m', 'deoldify_lite.cli', 'app', '--model', str(models['safetensors']), '--port', str(port)],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | dict(TMPDIR=str(a.folder)))
    url, data = f'http://127.0.0.1:{port}/api', (a.folder/'1mp.jpg').read_bytes()
    def client(_):
        waits = []
        with httpx.Client(timeout=300) as c:
            for i in range(each):
                if i % 5 == 2 and c.post(f'{url}/colorize', files=dict(photo=data[:3000])).status_code != 422: raise SystemExit('A broken photo was not refused.')
                waits.append(timed(lambda: c.post(f'{url}/colorize', files=dict(photo=data)).raise_for_status())())
        return waits
    try:
        while not alive(url, process): time.sleep(.3)
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool: waits = sum(pool.map(client, range(clients)), [])
        show('throughput', len(waits) / (time.perf_counter() - began), 'photos/s')
        show('wait, p50', median(waits), 'seconds')
        show('wait, p95', quantiles(waits, n=20)[-1], 'seconds')
        show('memory at most', memory_of(process, 'VmHWM') / 2**10, 'GiB')
    finally: process.terminate()


def alive(url, process):
    if process.poll() is not None: raise SystemExit('The service ended.')
    try: return bool(urllib.request.urlopen(f'{url}/health', timeout=5).read())
    except (urllib.error.URLError, ConnectionError, TimeoutError): return False


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='few photos and rounds: does it run at all?')
    p.add_argument('--model', type=Path, help='a .safetensors to measure with')
    p.add_argument('--json', type=Path, help='file to write the rows to as well')
    a = p.parse_args()
    a.rounds = 1 if a.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        a.folder = Path(folder)
        models = files(a, a.folder)
        for part in runtimes, imported, one, many, film, service: part(a, models)
    if a.json: a.json.write_text(json.dumps(ROWS, indent=1))


if __name__ == '__main__': main()

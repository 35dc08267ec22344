"""`make bench`: photos a second and memory of stage 1 on this machine, against fastai's defaults in the same run.

Sides that are compared take turns (A B C A B C ...) after one warm-up each; a ratio is the median over the rounds of the
ratio inside a round, so that a machine that slows down or is shared does not tilt it. All weights are random: they do not
change the speed. Absolute numbers are only as good as the machine is idle; ratios hold either way.
"""
import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import torch
import torchvision
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Learner
from fastai.optimizer import Adam
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deoldify_lite.color import targets
from deoldify_lite.data import photo_dls
from deoldify_lite.generator import DynamicUnet, Generator, as_plain, encoder, generators, native_bf16
from deoldify_lite.learner import generator_learner
from deoldify_lite.loss import LAYER_WEIGHTS, PerceptualLoss
from deoldify_lite.photos import find_data
from deoldify_lite.recipe import recipes

RECIPE = recipes['deoldify']
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
BATCH = {f.size: f.bs for f in RECIPE.pretrain}
ROWS = []


# --- what is compared

class DeOldifyLoss(nn.Module):
    "DeOldify's `FeatureLoss`: pixels, and all of vgg16_bn up to the last pooling, of both pictures."
    def __init__(self):
        super().__init__()
        self.vgg = torchvision.models.vgg16_bn().features.eval().requires_grad_(False)
        self.ends = [i - 1 for i, m in enumerate(self.vgg) if isinstance(m, nn.MaxPool2d)][2:]

    def features(self, x):
        found = []
        for i, layer in enumerate(self.vgg):
            x = layer(x)
            if i in self.ends: found.append(x.clone())     # the pooling's neighbour is a ReLU in place
        return found

    def forward(self, pred, y):
        parts = zip(self.features(pred), self.features(y), LAYER_WEIGHTS)
        return nn.functional.l1_loss(pred, y) + sum(w * 100 * nn.functional.l1_loss(p, r) for p, r, w in parts)


class Batches(DataLoader):
    "The same (grey, colour) batch, again and again, without a dataset behind it."
    def __init__(self, size, bs, n): super().__init__([tuple(torch.randn(2, bs, 3, size, size, device=DEVICE))] * n, bs=None)


class Stopwatch(Callback):
    "Seconds of an epoch's batches."
    order = 100
    def before_train(self): sync(); self.began = time.perf_counter()
    def after_train(self): sync(); self.learn.seconds = time.perf_counter() - self.began


def sync():
    if DEVICE == 'cuda': torch.cuda.synchronize()


def dls_of(size, bs, n=1): return DataLoaders(Batches(size, bs, n), Batches(size, bs, 0), device=DEVICE)


def ours(dls, **kwargs):
    "Stage 1 as `stages` trains it."
    generator = generators[RECIPE.generator](**RECIPE.generator_args).to(DEVICE)
    return quiet(generator_learner(dls, generator, PerceptualLoss().to(DEVICE), wd=RECIPE.wd, **kwargs))


def fastai_default(dls):
    "The same network and loss in a plain `Learner`: fastai's Adam, float32, contiguous."
    generator = generators[RECIPE.generator](**RECIPE.generator_args).to(DEVICE)
    return quiet(Learner(dls, generator, PerceptualLoss().to(DEVICE), opt_func=Adam, wd=RECIPE.wd))


def deoldify_artistic(dls):
    "DeOldify's published artistic network and loss, likewise."
    target = targets['rgb']()
    net = PlainOutput(DynamicUnet(encoder('resnet34'), target.n_out, target.y_range, width=1.5), target).to(DEVICE)
    return quiet(Learner(dls, net, DeOldifyLoss().to(DEVICE), opt_func=Adam, wd=RECIPE.wd))


class PlainOutput(Generator):
    "DeOldify's loss sees what the network answers."
    def forward(self, x): return self.network(as_plain(x))


def quiet(learn):
    for name in ('progress', 'recorder'): learn.remove_cb(getattr(learn, name))
    learn.add_cb(Stopwatch())
    return learn


def epoch(learn):
    "One epoch through fastai's loop; its seconds."
    learn.fit(1, 1e-6)
    return learn.seconds


def conv_step(dtype, backward, repeats=4):
    "A function that runs a plain 128-channel 3x3 convolution, and its GFLOP."
    conv = nn.Conv2d(128, 128, 3, padding=1, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last)
    x = torch.randn(16, 128, 32, 32, device=DEVICE, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_(backward)
    def run():
        with torch.set_grad_enabled(backward):
            for _ in range(repeats):
                y = conv(x)
                if backward: y.backward(y.detach())
    return run, repeats * (1 + 2 * backward) * 2 * x.numel() * 128 * 9 / 1e9


# --- how it is measured

def timed(run):
    "Seconds of one call."
    def call():
        sync()
        began = time.perf_counter()
        run()
        sync()
        return time.perf_counter() - began
    return call


def alternate(sides, rounds):
    "Name -> seconds in each round; every side runs once a round, after one warm-up each."
    for run in sides.values(): run()
    took = {name: [] for name in sides}
    for _, (name, run) in itertools.product(range(rounds), sides.items()): took[name].append(run())
    return took


def rate(took, name, n): return n / median(took[name])
def ratio(took, fast, slow, n=1.): return n * median(s / f for s, f in zip(took[slow], took[fast]))


def show(name, value, unit='', note=''):
    ROWS.append(dict(name=name, value=value, unit=unit, note=note))
    text = f'{value:,.2f}' if isinstance(value, float) and abs(value) < 100 else f'{value:,.0f}' if isinstance(value, float) else str(value)
    print(f'  {name:<46}{text:>10} {unit:<10} {note}', flush=True)


def title(text): print(f'\n{text}', flush=True)


# --- memory: each in a process of its own

def high_water():
    "Most memory that this process held at once, in GiB. (Linux hands ru_maxrss on from the parent process: VmHWM is our own.)"
    try: return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 2**20
    except (OSError, IndexError): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**(20 if sys.platform != 'darwin' else 30)


def child_training(make, size, bs):
    "Three steps of stage 1 from the sample photos."
    files = sorted(find_data('sample').iterdir())
    return make(photo_dls(files * bs, files[:1], size, bs, n=3 * bs, device=DEVICE))


CHILDREN = dict(
    nothing=lambda size, bs: None,
    ours=lambda size, bs: epoch(child_training(ours, size, bs)),
    fastai=lambda size, bs: epoch(child_training(fastai_default, size, bs)))


def memory(name, size, bs, threads):
    "GiB at most in a fresh process."
    command = [sys.executable, __file__, '--child', name, str(size), str(bs), '--threads', str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode: raise SystemExit(f'{name} failed:\n{done.stderr[-2000:]}')
    return float(done.stdout.split()[-1])


# --- the table

def machine(a):
    title('machine')
    show('processor', torch.cuda.get_device_name() if DEVICE == 'cuda' else processor())
    show('threads', torch.get_num_threads(), '', f'of {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} when started')
    show('torch', torch.__version__)
    show('native bf16', 'yes' if native_bf16(DEVICE) else 'no', '', '' if native_bf16(DEVICE) else 'so training is float32')
    dtypes = [torch.float32] + [torch.bfloat16] * native_bf16(DEVICE)
    steps = {f'{str(d)[6:]} {"forward + backward" if b else "forward"}': conv_step(d, b) for d in dtypes for b in (False, True)}
    took = alternate({k: timed(run) for k, (run, _) in steps.items()}, a.rounds * 2)
    for k, (_, work) in steps.items(): show(f'3x3 convolution, {k}', rate(took, k, work), 'GFLOP/s', '128 channels, 16 x 32 x 32, channels-last')


def processor():
    try: return next(line.split(':')[1].strip() for line in Path('/proc/cpuinfo').read_text().splitlines() if line.startswith('model name'))
    except (OSError, StopIteration): return platform.processor() or platform.machine()


def stage_one(a):
    size, bs, n = 64, 4 if a.quick else BATCH[64], 2 if a.quick else 1
    title(f'stage 1, a training step at {size} px, batch {bs}')
    dtype = torch.bfloat16 if native_bf16(DEVICE) else torch.float32
    conv, conv_work = conv_step(dtype, True)
    learns = {f.__name__: f(dls_of(size, bs, n)) for f in (ours, fastai_default, deoldify_artistic)}
    took = alternate({k: lambda learn=learn: epoch(learn) for k, learn in learns.items()} | dict(conv=timed(conv)), a.rounds)
    with FlopCounterMode(display=False) as count: epoch(learns['ours'])
    work = count.get_total_flops() / 1e9
    for k, note in dict(ours=f"generator_learner, {str(dtype)[6:]}, channels-last, fused AdamW",
                        fastai_default='same network and loss; Learner, float32, contiguous, Adam',
                        deoldify_artistic='decoder x 1.5, vgg16_bn of both pictures; likewise').items():
        show(k.replace('_', ' '), rate(took, k, n * bs), 'photos/s', note)
    show('ours : fastai default', ratio(took, 'ours', 'fastai_default'), 'x', 'issue: 2 with native bf16')
    show('ours : DeOldify artistic', ratio(took, 'ours', 'deoldify_artistic'), 'x', 'issue: 10 with native bf16')
    show('arithmetic of ours', work / n / bs, 'GFLOP', 'a photo: forward, backward and loss')
    show('share of the convolution rate', 100 * ratio(took, 'ours', 'conv', work / conv_work), '%', f'issue: 65; {str(dtype)[6:]}, forward + backward')


def loader(a):
    files = sorted(p for p in find_data(a.data).rglob('*') if p.suffix.lower() in Image.registered_extensions() and p.is_file())
    n = 64 if a.quick else 512
    files = (files * n)[:n]
    title(f'loader alone, {len(set(files))} photos of {a.data}, against what the network eats in training')
    learn = ours(dls_of(64, 1))
    with tempfile.TemporaryDirectory() as folder:
        for size in (64, 224) if a.quick else BATCH:
            bs = min(BATCH[size], 4) if a.quick else BATCH[size]
            cached = photo_dls(files, files[:bs], size, bs, cache=Path(folder), device=DEVICE).train
            decoding = photo_dls(files, files[:bs], size, bs, n=16 * bs if not a.quick else n, device=DEVICE).train
            learn.dls = dls_of(size, bs)
            took = alternate(dict(net=lambda: epoch(learn), cached=timed(lambda dl=cached: list(map(len, dl))),
                                  decoding=timed(lambda dl=decoding: list(map(len, dl)))), max(a.rounds // 2, 1))
            show(f'{size} px: network', rate(took, 'net', bs), 'photos/s', f'batch {bs}')
            for k, dl in dict(cached=cached, decoding=decoding).items():
                show(f'{size} px: loader {"with its cache" if k == "cached" else "decoding files"}', rate(took, k, len(dl) * bs), 'photos/s',
                     f"{ratio(took, k, 'net', len(dl)):.1f} x the network (issue: 3)")
                ROWS[-1]['ratio'] = ratio(took, k, 'net', len(dl))


def memories(a):
    size, bs = 224, 2 if a.quick else 8
    title(f'peak memory of stage 1 at {size} px, batch {bs}, in a process of its own')
    got = {k: memory(k, size, bs, a.threads) for k in ('nothing', 'ours') + ('fastai',) * (not a.quick)}
    show('Python and the libraries alone', got['nothing'], 'GiB')
    show('ours', got['ours'], 'GiB', 'libraries, loader, network, loss, gradients, AdamW; 3 steps (issue: under 8)')
    if 'fastai' in got:
        show('fastai default', got['fastai'], 'GiB', 'the same')
        show('ours : fastai default', got['ours'] / got['fastai'], 'x')


def gpu(a):
    size, bs = 192, 64
    title(f'GPU: a training step at {size} px, batch {bs}')
    a_matrix = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    eager, compiled = ours(dls_of(size, bs, 4)), ours(dls_of(size, bs, 4))
    compiled.model.compile()
    took = alternate(dict(eager=lambda: epoch(eager), compiled=lambda: epoch(compiled), matmul=timed(lambda: [a_matrix @ a_matrix for _ in range(8)])), a.rounds)
    with FlopCounterMode(display=False) as count: epoch(eager)
    for k in ('eager', 'compiled'):
        show(f'torch.compile {"on" if k == "compiled" else "off"}', rate(took, k, 4 * bs), 'photos/s')
        show('share of a bf16 matrix product\'s rate', 100 * ratio(took, k, 'matmul', count.get_total_flops() / (8 * 2 * 8192**3)), '%')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true', help='small batches and few rounds: does it run at all?')
    p.add_argument('--data', default='sample', help="folder of photos for the loader")
    p.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of torch')
    p.add_argument('--json', type=Path, help='file to write the rows to as well')
    p.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    a = p.parse_args()
    a.rounds = 2 if a.quick else 4
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    warnings.filterwarnings('ignore')
    Image.init()
    if a.child:
        CHILDREN[a.child[0]](int(a.child[1]), int(a.child[2]))
        return print(high_water())
    for part in (machine, stage_one, loader, memories) + (gpu,) * (DEVICE == 'cuda'): part(a)
    if a.json: a.json.write_text(json.dumps(ROWS, indent=1))


if __name__ == '__main__': main()

"""What a change of generator or loss is worth: train on one core for so many seconds of its time, and measure on other photos.

    python tests/trial.py scenes/train scenes/valid --seconds 600 --loss l1-l2 --generator backbone=resnet18 target=chroma half=true width=0.5 norm=batch

PSNR alone rewards pale colours. So the answer is multiplied by several factors, and its PSNR is told at 60, 75 and 90 % of the real colourfulness.
"""
import argparse
import json
import os
import time
import warnings
from itertools import count
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.schedule import combined_cos

from deoldify_lite.color import denormalize
from deoldify_lite.core import seed_all
from deoldify_lite.data import photo_dls
from deoldify_lite.export import load_generator
from deoldify_lite.generator import as_plain, generators
from deoldify_lite.loss import L1L2Loss, TargetLoss, losses, make_loss
from deoldify_lite.metrics import colourfulness
from deoldify_lite.photos import scan
from deoldify_lite.training import OnScale

@losses('psnr')
class PSNRLoss(TargetLoss):
    "Logarithm of each photo's squared error, which is its PSNR (Chen et al. 2021, HINet)."
    def compare(self, raw, real): return .1 * (raw - real).square().flatten(1).mean(1).clamp_min(1e-5).log().mean()


@losses('rare')
class RareLoss(TargetLoss):
    "`l1-l2` with strong colours counting more: grey 1, a chroma of a tenth 2, and so on; 1 on the average."
    def compare(self, raw, real):
        weight, off = 1 + real.norm(dim=1, keepdim=True) / .1, (raw - real).abs()
        return (weight / weight.mean() * (off + 10 * off.square())).mean()


@losses('colour')
class ColourLoss(L1L2Loss):
    "`l1-l2`, and by how many hundreds each photo is more or less colourful than it was."
    def forward(self, pred, y):
        ours, real = (colourfulness(F.interpolate(denormalize(as_plain(c).float()), pred.raw.shape[-2:], mode='area')) for c in (pred, y))
        return super().forward(pred, y) + ((ours - real) / 100).abs().mean()


FACTORS = 0, .7, .85, 1, 1.15, 1.3, 1.45, 1.6, 1.8, 2.
SHARES = .6, .75, .9


def settings(words):
    "'width=0.5' -> dict(width=.5); what is no JSON is a name."
    def value(text):
        try: return json.loads(text)
        except json.JSONDecodeError: return text
    return {k: value(v) for k, v in (w.split('=', 1) for w in words)}


def parsed():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('train', type=Path, help="folder of photos to learn from")
    p.add_argument('valid', type=Path, help="folder of photos to measure on, 512 at most")
    p.add_argument('--generator', nargs='*', default=[], help="its arguments, as width=0.5")
    p.add_argument('--kind', default='unet', help="which generator")
    p.add_argument('--loss', default='l1-l2', help=', '.join(losses))
    p.add_argument('--start', type=Path, help="file of save_generator to go on from, in place of --generator")
    p.add_argument('--seconds', type=float, default=600., help="time of the processor, without measuring")
    p.add_argument('--lr', type=float, default=1e-3)
    p.add_argument('--bs', type=int, default=16)
    p.add_argument('--size', type=int, default=64)
    p.add_argument('--cache', type=Path, default=Path('models/trial'), help="folder for decoded photos")
    return p.parse_args()


rate = combined_cos(.3, 1 / 25, 1., 1e-5)    # one cycle, as the stages have it


def frontier(net, loader):
    "What is measured at each factor on the chroma, and PSNR and ab distance at shares of the real colourfulness."
    tallies = {f: OnScale(f) for f in FACTORS}
    net.eval()
    with torch.no_grad():
        for x, y in loader:
            answer = net(x)
            for tally in tallies.values(): tally.add(answer, y)
    net.train()
    found = {f: t.result() for f, t in tallies.items()}
    colour, *curves = zip(*sorted((r['colour_ratio'], r['psnr'], r['ab_distance']) for r in found.values()))
    return found, [[float(np.interp(s, colour, c)) for c in curves] for s in SHARES]


def train(net, loss, loader, a):
    "Train for `a.seconds`; answers how many photos were shown."
    opt, seen, began = torch.optim.AdamW(net.parameters(), a.lr, betas=(.9, .99), eps=1e-5, weight_decay=1e-3), 0, time.process_time()
    def batches():
        for epoch in count():
            loader.start(epoch)
            yield from loader
    for x, y in batches():
        if (t := (time.process_time() - began) / a.seconds) >= 1: return seen
        for g in opt.param_groups: g['lr'] = a.lr * rate(t)
        loss(net(x.contiguous(memory_format=torch.channels_last)), y).backward()
        opt.step()
        opt.zero_grad()
        seen += len(x)


def main():
    warnings.filterwarnings('ignore')
    a = parsed()
    seed_all(0)
    net = load_generator(a.start)[0] if a.start else generators[a.kind](**settings(a.generator))
    net.train().to(memory_format=torch.channels_last)
    files = [scan(d, valid_pct=0).files('train') for d in (a.train, a.valid)]
    dls = photo_dls(files[0], files[1][:512], a.size, a.bs, cache=a.cache)
    seen = train(net, make_loss(a.loss)[0], dls.train, a)
    found, at = frontier(net, dls.valid)
    print(f"{seen} photos, {seen / a.seconds:.1f} a second; grey {found[0]['psnr']:.2f} dB, as it is {found[1]['psnr']:.2f} dB at {found[1]['colour_ratio']:.0%}, "
          f"ab distance {found[1]['ab_distance']:.2f}; " + ', '.join(f'{psnr:.2f} dB ({far:.2f}) at {s:.0%}' for (psnr, far), s in zip(at, SHARES)))


if __name__ == '__main__': main()

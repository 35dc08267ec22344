"""What the recipes are held against: a plain training without stages, 60,000 photos at 64 px from random weights, for `deoldify-lite evaluate`.

    python tests/plain.py scenes/train plain.safetensors

ResNet-34 U-Net that answers chroma, L1 + 10 x squared error, batches of 32, AdamW, 1e-3 falling along a cosine, bf16.
"""
import sys
import warnings
from itertools import count, islice
from pathlib import Path

import torch
from fastai.callback.schedule import SchedCos

from deoldify_lite.core import seed_all
from deoldify_lite.data import photo_dls
from deoldify_lite.export import save_generator
from deoldify_lite.generator import generators
from deoldify_lite.loss import make_loss
from deoldify_lite.photos import scan

ARGS, SIZE, BS, PHOTOS, LR = dict(backbone='resnet34', target='chroma', norm='batch'), 64, 32, 60_000, 1e-3


def rounds(loader):
    "Batches without end."
    for epoch in count():
        loader.start(epoch)
        yield from loader


def train(net, loss, batches, steps):
    "The whole schedule."
    opt, rate = torch.optim.AdamW(net.parameters(), LR, betas=(.9, .99), eps=1e-5, weight_decay=1e-2), SchedCos(LR, LR / 1000)
    for i, (x, y) in enumerate(islice(batches, steps)):
        for g in opt.param_groups: g['lr'] = rate(i / steps)
        with torch.autocast('cpu', torch.bfloat16): off = loss(net(x.contiguous(memory_format=torch.channels_last)), y)
        off.backward()
        opt.step()
        opt.zero_grad()
        if i % 100 == 99: print(f'{(i + 1) * BS} photos, loss {off.item():.3f}', flush=True)


def main():
    warnings.filterwarnings('ignore')
    photos, out = sys.argv[1:]
    seed_all(0)
    net = generators['unet'](**ARGS).train().to(memory_format=torch.channels_last)
    files = scan(Path(photos), valid_pct=0).files('train')
    train(net, make_loss('l1-l2')[0], rounds(photo_dls(files, files[:1], SIZE, BS).train), PHOTOS // BS)
    save_generator(net.eval(), out, 'unet', ARGS, SIZE)


if __name__ == '__main__': main()

"""The U-Net against DeOldify's own answers (needs ../shared/parity), and its shapes."""
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deoldify_lite.generator import DynamicUnet, encoder, folded

PARITY = Path(__file__).parents[2]/'shared'/'parity'
ARCHITECTURES = dict(artistic=dict(backbone='resnet34', width=1.5), stable=dict(backbone='resnet101', decoder='wide', width=2))


def our_name(name):
    "DeOldify's tensor name -> ours."
    stages = {'0': 'encoder.0.0', '1': 'encoder.0.1', '4': 'encoder.1.1', '5': 'encoder.2', '6': 'encoder.3', '7': 'encoder.4'}
    _, top, *rest = name.split('.')
    rest = '.'.join(rest)
    if top == '0': first, _, tail = rest.partition('.'); out = f'{stages[first]}.{tail}'
    elif top in '1': out = f'bn.{rest}'
    elif top == '3': out = f'middle.{rest}'
    elif top in '4567':
        rest = rest.replace('shuf.conv.0', 'up.conv').replace('shuf.conv.1', 'up.bn')
        rest = re.sub(r'conv\d?\.3\.', 'attention.', rest)
        rest = re.sub(r'^conv(\d?)\.', lambda m: f'convs.{int(m[1] or 1) - 1}.', rest)
        out = f'blocks.{int(top) - 4}.{rest}'
    else: out = {'8': 'up.' + rest.replace('conv.0', 'conv'), '10': rest.replace('layers', 'cross'), '11': f'head.{rest}'}[top]
    return re.sub(r'weight_orig$', 'parametrizations.weight.original', re.sub(r'weight_([uv])$', r'parametrizations.weight.0._\1', out))


def our_state(state):
    "A DeOldify state dict as one of ours; its one weight-normalised convolution becomes a plain one."
    g, v = state['layers.8.conv.0.weight_g'], state['layers.8.conv.0.weight_v']
    plain = {k: t for k, t in state.items() if not k.startswith('layers.8.conv.0.weight')}
    plain['layers.8.conv.0.weight'] = g * v / v.flatten(1).norm(dim=1)[:, None, None, None]
    return {our_name(k): t for k, t in plain.items()}


@pytest.mark.skipif(not PARITY.exists(), reason='needs ../shared/parity')
@pytest.mark.parametrize('kind', ARCHITECTURES)
def test_answers_as_deoldify(kind):
    sys.path.insert(0, str(PARITY))
    from reference_weights import load_spec, reference_input, reference_state
    args = dict(ARCHITECTURES[kind])
    unet = DynamicUnet(encoder(args.pop('backbone')), **args).eval()
    unet.load_state_dict(our_state(reference_state(load_spec(kind))))
    with torch.no_grad():
        x, real = reference_input(64), np.load(PARITY/f'{kind}_64.npy')
        assert np.abs(unet(x)[0].numpy() - real).max() < 1e-4
        assert np.abs(folded(unet)(x)[0].numpy() - real).max() < 1e-4


@pytest.mark.parametrize('backbone', ['resnet18', 'resnet50'])
@pytest.mark.parametrize('decoder', ['deep', 'wide'])
def test_any_size(backbone, decoder):
    unet = DynamicUnet(encoder(backbone), decoder=decoder, width=.25, norm='batch').eval()
    with torch.no_grad():
        for size in ((32, 32), (33, 47), (96, 64)): assert unet(torch.zeros(1, 3, *size)).shape == (1, 3, *size)


def test_spectral_norm_bounds_every_decoder_convolution():
    unet = DynamicUnet(encoder('resnet18'), width=.25)
    for _ in range(30): unet(torch.randn(2, 3, 32, 32))              # the power iteration runs in training mode
    weights = [m.weight.flatten(1) for n, m in unet.named_modules() if hasattr(m, 'parametrizations')]
    assert len(weights) > 10
    assert max(torch.linalg.matrix_norm(w, 2).item() for w in weights) < 1.1

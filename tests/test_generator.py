"""The U-Net against DeOldify's own answers (needs ../shared/parity), and its shapes."""
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from PIL import Image
from published import Published
from test_cli import run

from deoldify_lite import inference
from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import RELEASED, UserError
from deoldify_lite.deoldify import ARCHITECTURES, load_deoldify
from deoldify_lite.export import export_onnx, load_generator
from deoldify_lite.generator import DynamicUnet, encoder, unet_generator
from deoldify_lite.inference import folded
from deoldify_lite.systems.pix2pix import pix2pix_generator

PARITY = Path(__file__).parents[2]/'shared'/'parity'


@pytest.mark.skipif(not PARITY.exists(), reason='needs ../shared/parity')
@pytest.mark.parametrize('kind', ARCHITECTURES)
def test_answers_as_deoldify(kind, tmp_path, monkeypatch):
    sys.path.insert(0, str(PARITY))
    from reference_weights import load_spec, reference_input, reference_state
    state = reference_state(load_spec(kind))
    torch.save(dict(model=state, opt=partial(torch.optim.Adam, betas=(.9, .99))), tmp_path/'gen.pth')
    assert f"DeOldify's {kind}" in run('import-deoldify', 'gen.pth', 'gen.safetensors', cwd=tmp_path).stdout
    generator, header = load_generator(tmp_path/'gen.safetensors')
    assert header['size'] == 560
    with torch.no_grad():
        x, real = reference_input(64), np.load(PARITY/f'{kind}_64.npy')
        assert np.abs(generator.network(x)[0].numpy() - real).max() < 1e-4
        plain = folded(generator)
        assert np.abs(Colorizer(generator, 560).generator.network(x)[0].numpy() - real).max() < 1e-3
        published = Published(state)
        assert np.abs(published(x)[0].numpy() - real).max() < 1e-4
        for size in ((48, 80), (112, 112)):                              # at odd multiples of 16 maps differ in size where they are joined
            x = torch.randn(1, 3, *size)
            assert (generator.network(x) - published(x)).abs().max() < 1e-4
            assert (plain.network(x) - published(x)).abs().max() < 1e-4
        monkeypatch.setattr(inference, 'STRIP', 1)
        x, strips = reference_input(96), []
        monkeypatch.setattr(inference, '_by_strips', lambda step, h, x, real=inference._by_strips: strips.append(h.shape) or real(step, h, x))
        assert (Colorizer(generator, 560).generator.network(x) - plain.network(x)).abs().max() < 1e-3 and strips      # the short ways, too
    torch.save(state, tmp_path/'old.pth', _use_new_zipfile_serialization=False)                                       # as torch 1.0 wrote it
    assert load_deoldify(tmp_path/'old.pth')[1] == kind
    state.pop(next(iter(state)))
    torch.save(state, tmp_path/'less.pth')
    with pytest.raises(UserError, match="not one of DeOldify's generators: .* artistic and .* stable"): Colorizer.load(tmp_path/'less.pth')


@pytest.mark.parametrize('args', [dict(backbone='resnet34', width=.25), dict(backbone='resnet50', decoder='wide', width=.125),
                                  dict(backbone='resnet18', width=.25, norm='batch', half=True, target='chroma')], ids=['artistic', 'stable', 'half'])
def test_onnx_of_unets_with_a_factor(args, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    generator = unet_generator(**args)
    generator.train()(torch.randn(2, 3, 64, 64))                         # norms that have seen something
    generator.eval().chroma = 1.4
    export_onnx(generator, tmp_path/'g.onnx', 64)
    session = onnxruntime.InferenceSession(tmp_path/'g.onnx')
    for shape in (1, 3, 64, 64), (2, 3, 48, 80), (1, 3, 33, 47):
        x = torch.randn(*shape).clamp(-2, 2)
        with torch.no_grad(): want = folded(generator)(x).numpy()
        got = session.run(None, {'grey': x.numpy()})[0]
        assert np.abs(got - want).max() < 1e-3 and np.abs(want[:, 0] - want[:, 2]).max() > .05


def test_onnx_of_a_network_that_small_squares_do_not_fit(tmp_path):
    "pix2pix at depth 8, as in the paper, halves 256 px to one."
    pytest.importorskip('onnxruntime')
    generator = pix2pix_generator(depth=8, nf=4).eval()
    export_onnx(generator, tmp_path/'g.onnx', 256)
    one, other = Colorizer(generator, 256), Colorizer.load(tmp_path/'g.onnx')
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 200), np.uint8))
    for factor in 16, 20: assert np.abs(np.asarray(one(photo, factor), int) - np.asarray(other(photo, factor), int)).max() <= 1
    for colorizer in one, other:
        with pytest.raises(UserError, match='16 or more, not 8'): colorizer(photo, 8)


def test_onnx_of_packed_weights_is_as_small_as_they_are(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    generator, header = load_generator(RELEASED)
    export_onnx(generator, tmp_path/'g.onnx', header['size'])
    assert (tmp_path/'g.onnx').stat().st_size < 1.01 * RELEASED.stat().st_size
    x = torch.randn(1, 3, 64, 80).clamp(-2, 2)
    with torch.no_grad(): want = folded(generator)(x).numpy()
    assert np.abs(onnxruntime.InferenceSession(tmp_path/'g.onnx').run(None, {'grey': x.numpy()})[0] - want).max() < 1e-4


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


@pytest.mark.parametrize('half', [False, True])
def test_autocast_reaches_the_whole_decoder(half):
    unet, seen = DynamicUnet(encoder('resnet18'), width=.25, half=half), {}
    def note(name): return lambda m, args: seen.update({name: args[0].dtype})
    for name, m in unet.named_modules():
        if isinstance(m, torch.nn.Conv2d) and not name.startswith('encoder'): m.register_forward_pre_hook(note(name))
    with torch.autocast('cpu', torch.bfloat16): unet(torch.randn(2, 3, 32, 32))
    assert len(seen) > 10 and set(seen.values()) == {torch.bfloat16}, seen

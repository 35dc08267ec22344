"""Two processes: gradients and batch statistics are those of one process on the whole batch, exactly."""
import os
import socket
import subprocess
import sys

import torch

from deoldify_lite.loss import PerceptualLoss

CHILD = '''
import copy, os, sys, torch, torch.distributed as dist
from torch import nn
from deoldify_lite.generator import generators
from deoldify_lite.learner import Parallel
rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
torch.set_default_dtype(torch.float64)
torch.Tensor.float = lambda self: self                           # stay in float64, where rounding hides nothing
torch.manual_seed(rank)                                          # each starts with other weights
net = generators['unet']('resnet18', norm='batch', width=.25)
if rank == 0: torch.manual_seed(0); net = generators['unet']('resnet18', norm='batch', width=.25)
net.mean = nn.BatchNorm1d(3)
torch.manual_seed(1)
x, y = torch.randn(5, 1, 64, 64).expand(-1, 3, -1, -1), torch.randn(5, 3, 64, 64)   # three for one, two for the other

def step(net, part, cb=None):
    class Learn: model, training, xb = net, True, (x[part],)
    if cb: cb.learn = Learn; cb.before_fit(); cb.before_batch()
    net.train()
    out = net(x[part])
    loss = (out - y[part]).square().mean() + net.mean(out.mean((2, 3))).pow(3).mean()
    if cb: Learn.loss_grad = loss; cb.before_backward(); loss = Learn.loss_grad
    loss.backward()
    if cb: cb.before_step()
    grads = {n: p.grad.flatten() for n, p in net.named_parameters()}
    if cb: cb.after_fit()
    assert type(net.network.bn) is nn.BatchNorm2d and type(net.mean) is nn.BatchNorm1d
    return grads, net.state_dict()

alone = step(copy.deepcopy(net), slice(None)) if rank == 0 else None
dist.init_process_group('gloo')
torch.save((alone, step(net, slice(rank, None, world), Parallel())), sys.argv[1])
'''


def test_gradients_and_statistics_equal_those_of_one_process(tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    env = os.environ | dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    files = [tmp_path/f'{r}.pt' for r in range(2)]
    group = [subprocess.Popen([sys.executable, '-c', CHILD, str(f)], env=env | dict(RANK=str(r))) for r, f in enumerate(files)]
    assert [p.wait(120) for p in group] == [0, 0]
    (alone, first), (_, second) = [torch.load(f, weights_only=True) for f in files]
    for grads, state in first, second:
        for name in grads: assert torch.allclose(alone[0][name], grads[name], rtol=1e-8, atol=1e-12), name
        for name in state: assert torch.allclose(alone[1][name], state[name], rtol=1e-8, atol=1e-12), name


def test_the_perceptual_loss_of_a_batch_is_that_of_its_parts():
    torch.manual_seed(0)
    loss, y = PerceptualLoss(), torch.randn(4, 3, 48, 48) * torch.tensor([.1, .5, 1, 2])[:, None, None, None]     # of unlike contrast
    pred = y + .3 * torch.randn_like(y)
    with torch.no_grad(): whole, parts = loss(pred, y), [loss(pred[i::2], y[i::2]) for i in range(2)]
    assert parts[0] != parts[1] and torch.allclose(whole, sum(parts) / 2, rtol=1e-6)

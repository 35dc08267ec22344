"""Two processes: gradients and batch statistics are those of one process on the whole batch, exactly."""
import os
import socket
import subprocess
import sys

import torch

CHILD = '''
import os, sys, torch, torch.distributed as dist
from torch import nn
from deoldify_lite.generator import generators
from deoldify_lite.learner import Parallel
rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
torch.Tensor.float = lambda self: self                           # stay in float64, where rounding hides nothing
torch.manual_seed(rank)                                          # each starts with other weights
net = generators['unet']('resnet18', norm='batch', width=.25)
if rank == 0: torch.manual_seed(0); net = generators['unet']('resnet18', norm='batch', width=.25)
net.mean = nn.BatchNorm1d(3)
torch.manual_seed(1)
x, y = torch.randn(5, 1, 64, 64).expand(-1, 3, -1, -1), torch.randn(5, 3, 64, 64)   # three for one, two for the other
class Learn: model, training, xb = net, True, (x[rank::world],)
if world > 1:
    dist.init_process_group('gloo')
    cb = Parallel()
    cb.learn = Learn
    cb.before_fit()
    cb.before_batch()
net.train()
out = net(x[rank::world])
loss = (out - y[rank::world]).square().mean() + net.mean(out.mean((2, 3))).pow(3).mean()
if world > 1: Learn.loss_grad = loss; cb.before_backward(); loss = Learn.loss_grad
loss.backward()
if world > 1: cb.before_step()
grads = {n: p.grad.flatten() for n, p in net.named_parameters()}
if world > 1: cb.after_fit()
assert type(net.network.bn) is nn.BatchNorm2d and type(net.mean) is nn.BatchNorm1d
torch.save((grads, net.state_dict()), sys.argv[1])
'''


def run(folder, world):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = str(s.getsockname()[1])
    env = os.environ | dict(WORLD_SIZE=str(world), MASTER_ADDR='127.0.0.1', MASTER_PORT=port, OMP_NUM_THREADS='1')
    files = [folder/f'{world}_{r}.pt' for r in range(world)]
    group = [subprocess.Popen([sys.executable, '-c', CHILD, str(f)], env=env | dict(RANK=str(r))) for r, f in enumerate(files)]
    assert [p.wait(120) for p in group] == [0] * world
    return [torch.load(f, weights_only=True) for f in files]


def test_gradients_and_statistics_equal_those_of_one_process(tmp_path):
    (grads, state), = run(tmp_path, 1)
    for other, other_state in run(tmp_path, 2):
        for name in grads: assert torch.allclose(grads[name], other[name], rtol=1e-8, atol=1e-12), name
        for name in state: assert torch.allclose(state[name], other_state[name], rtol=1e-8, atol=1e-12), name

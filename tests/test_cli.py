"""The command line, as a user meets it: one sentence for a mistake, no traceback, a code that is not 0."""
import contextlib
import errno
import io
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from deoldify_lite.cli import main
from deoldify_lite.core import UserError, read_table

MAIN = '''
import sys; sys.path.insert(0, {tests!r})
import conftest, pytest, signal
m = pytest.MonkeyPatch()
conftest.from_nothing(m)
from deoldify_lite.cli import main
main()
'''
DIES = MAIN.replace('\nmain()', '\nconftest.die(m, lambda: signal.raise_signal(signal.{how}), 5)\nmain()')


class Answer:
    "What a command did: exit code and streams."
    def __init__(self, code, out, err): self.returncode, self.stdout, self.stderr = code, out, err


def run(*args, cwd, **env):
    "Run the command line in this process, which spares the imports; `sys.exit` with a sentence prints it and means 1, as in Python."
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as m, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        m.chdir(cwd)
        m.setattr(sys, 'argv', ['deoldify-lite', *map(str, args)])
        for k, v in env.items(): m.setenv(k, v)
        try: main(); code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
            if isinstance(e.code, str): err.write(e.code)
    return Answer(code, out.getvalue(), err.getvalue())


def fails(words, *args, cwd, **env):
    out = run(*args, cwd=cwd, **env)
    message = out.stderr.strip().splitlines()[-1] if out.stderr.strip() else ''
    assert out.returncode == 1 and words in message and message.startswith('Error: '), out.stderr


SMALL = '''
import sys
for name in 'torch', 'torchvision', 'fastai', 'safetensors', 'kornia': sys.modules[name] = None
from deoldify_lite.cli import main
main()
'''


@pytest.mark.parametrize('command', ['colorize in.png -o out.png --model a.safetensors', 'pack a.safetensors -o b.safetensors', 'page site',
                                     'pretrain-gen --data sample', 'evaluate a.safetensors --data . -o t.md', 'export --onnx --model a.safetensors'])
def test_an_installation_for_onnx_files_says_what_more_it_needs(tmp_path, command):
    for name in 'in.png', 'a.safetensors': (tmp_path/name).write_bytes(b'')
    out = subprocess.run([sys.executable, '-c', SMALL, *command.split()], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 1 and 'Traceback' not in out.stderr
    assert re.search(r'Error: This needs (torch|safetensors|fastai), .*: .*-m pip install .*fastai', out.stderr.splitlines()[-1]), out.stderr


def test_help_is_fast_and_needs_no_torch():
    code = "import sys; from deoldify_lite.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    took = []
    for _ in range(3):                                                # the best of them: other tests run at the same time
        began = time.perf_counter()
        out = subprocess.run([sys.executable, '-c', code, '--help'], capture_output=True, text=True)
        took.append(time.perf_counter() - began)
    assert min(took) < 1 and out.returncode == 0
    assert out.stdout.strip().endswith('False') and 'pretrain-gen' in out.stdout


COMMANDS = 'pretrain-gen save-gen pretrain-critic train-gan export finetune card evaluate compare pick colorize video app page import-deoldify pack doctor'


@pytest.mark.parametrize('command', COMMANDS.split())
def test_every_command_explains_itself_with_an_example(command, tmp_path):
    out = run(command, '--help', cwd=tmp_path, COLUMNS='200')
    assert out.returncode == 0 and f'Example: deoldify-lite {command} ' in ' '.join(out.stdout.split()) + ' '


def test_mistakes_get_one_sentence(photos, tmp_path):
    (tmp_path/'empty').mkdir()
    grey = tmp_path/'grey'
    grey.mkdir()
    for i in range(3): Image.fromarray(np.random.default_rng(i).integers(0, 255, (80, 80), dtype=np.uint8)).save(grey/f'{i}.png')
    ask = ['pretrain-gen', '--run', 'x', '--recipe', 'tiny', '--data']
    fails('Name a folder of photos', *ask[:-1], cwd=tmp_path)
    fails('fewer than a batch of 88', 'pretrain-gen', '--run', 'x', '--recipe', 'deoldify', '--data', photos, cwd=tmp_path)
    assert not (tmp_path/'models'/'x').exists()                                        # what came to nothing takes no name
    fails('There is no image file', *ask, tmp_path/'empty', cwd=tmp_path)
    fails('3 grey or sepia', *ask, grey, cwd=tmp_path)
    fails('There is no folder', *ask, tmp_path/'nowhere', cwd=tmp_path)
    fails('nor a fastai data set', *ask, 'imagenete', cwd=tmp_path)
    fails("Unknown recipe 'tinny'", *ask, photos, '--recipe', 'tinny', cwd=tmp_path)
    fails('SIZES must grow', *ask, photos, '--sizes', '64 32', cwd=tmp_path)
    fails('SIZES are numbers', *ask, photos, '--sizes', 'large', cwd=tmp_path)
    fails('lies among the photos', *ask, tmp_path, cwd=tmp_path)
    fails("no device 'cuda:9'", *ask, photos, '--device', 'cuda:9', cwd=tmp_path)
    fails('EPOCHS must be 1', *ask, photos, '--epochs', '0', cwd=tmp_path)
    (tmp_path/'models'/'file').parent.mkdir(exist_ok=True)
    (tmp_path/'models'/'file').write_text('in the way')
    fails('Cannot write to the run folder', 'pretrain-gen', '--run', 'file', '--recipe', 'tiny', '--data', photos, cwd=tmp_path)
    fails('has no gan/log.csv', 'pick', '--run', 'nothing', cwd=tmp_path)
    photo = next(photos.rglob('*.png'))
    fails('There is no file none.safetensors', 'colorize', photo, '-o', 'out', '--model', 'none.safetensors', cwd=tmp_path)
    fails('is no generator of deoldify_lite', 'colorize', photo, '-o', 'out', '--model', photo, cwd=tmp_path)
    assert not (tmp_path/'out').exists()


def test_kill_and_run_again(photos, tmp_path):
    "kill -9 in the middle, then the same command: it goes on, and ends with the weights of a run never interrupted."
    ask = ['pretrain-gen', '--recipe', 'tiny', '--data', photos]
    assert run(*ask, '--run', 'whole', cwd=tmp_path).returncode == 0
    code = DIES.format(tests=os.path.dirname(__file__), how='SIGKILL')
    child = subprocess.run([sys.executable, '-c', code, *map(str, ask), '--run', 'cut'], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path/'models'/'cut'/'gen_032.part.pth').exists() and not (tmp_path/'models'/'cut'/'gen_032.pth').exists()
    import torch
    again = run('pretrain-gen', '--run', 'cut', cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    a, b = [torch.load(tmp_path/'models'/r/'gen_048.pth', weights_only=True) for r in ('whole', 'cut')]
    assert all(torch.equal(a[k], b[k]) for k in a)
    a, b = [[(row['step'], row['epoch'], row['seen'], row['loss'], row['lr']) for row in read_table(tmp_path/'models'/r/'history.csv')] for r in ('whole', 'cut')]
    assert a == b


def test_interrupt_says_how_to_go_on(photos, tmp_path):
    code = DIES.format(tests=os.path.dirname(__file__), how='SIGINT')
    ask = ['pretrain-gen', '--recipe', 'tiny', '--run', 'x', '--data', str(photos)]
    child = subprocess.run([sys.executable, '-c', code, *ask], cwd=tmp_path, capture_output=True, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))     # shells let jobs in the background ignore it
    assert child.returncode and 'Run the same command again' in child.stderr and 'Traceback' not in child.stderr, child.stderr


def test_a_full_disk_says_how_to_go_on(photos, tmp_path, monkeypatch):
    def full(obj, f): raise OSError(errno.ENOSPC, 'No space left on device', str(f))
    monkeypatch.setattr('torch.save', full)
    fails('The disk is full', 'pretrain-gen', '--recipe', 'often', '--sizes', '32', '--run', 'x', '--data', photos, cwd=tmp_path)


def test_every_stage_hands_on_what_is_asked(tmp_path, monkeypatch):
    asked = []

    def note(folder, *args):
        asked.append(args)
        raise UserError('far enough')
    monkeypatch.setattr('deoldify_lite.training.open_training', note)
    for command in 'pretrain-gen save-gen pretrain-critic train-gan export'.split():
        fails('far enough', command, '--run', 'r', '--data', 'd', '--recipe', 'x', '--sizes', '64,128', '--epochs', 2,
              '--start', 's', '--input', 'sketch', '--device', 'cpu', cwd=tmp_path)
    fails('far enough', 'finetune', '--run', 'r', '--data', 'd', '--epochs', 2, '--start', 's', '--device', 'cpu', cwd=tmp_path)
    assert asked == [('d', 'x', [64, 128], 2, 'cpu', 's', 'sketch')] * 5 + [('d', 'finetune', None, 2, 'cpu', 's', None)]


def test_two_processes_learn_what_one_does(photos, tmp_path):
    "Stages 1, 3 and 4 with two gloo processes: losses as with one at the same batch, within rounding, and one set of weights."
    keep = """import torch, deoldify_lite.stages as stages
from deoldify_lite.core import rank
save = stages.save_weights
def keep(t, net, name, step):
    torch.save(net.state_dict(), t.run/f'{name}.rank{rank()}')
    save(t, net, name, step)
stages.save_weights = keep
main()"""
    (tmp_path/'launch.py').write_text(MAIN.format(tests=os.path.dirname(__file__)).replace('\nmain()', '\n' + keep))
    ask = ['train-gan', '--recipe', 'pair', '--data', str(photos)]
    assert run(*ask, '--run', 'one', cwd=tmp_path).returncode == 0
    launched = subprocess.Popen

    def launch(command, **kwargs): return launched([sys.executable, 'launch.py', *command[3:]], cwd=tmp_path, **kwargs)
    with pytest.MonkeyPatch.context() as m:                          # the real launcher, with the tests' recipe in each process
        m.setattr('subprocess.Popen', launch)
        assert run(*ask, '--run', 'two', '--gpus', '2', cwd=tmp_path).returncode == 0
    one, two = [read_table(tmp_path/'models'/r/'history.csv') for r in ('one', 'two')]
    assert [(r['step'], r['epoch']) for r in one] == [(r['step'], r['epoch']) for r in two]
    for a, b in zip(one, two):                                       # rounding grows with every step of Adam
        assert float(a['loss']) == pytest.approx(float(b['loss']), rel=1e-3 if int(a['epoch']) < 2 and a['step'] != 'gan' else 2e-2), (a, b)
    import torch
    for name in ('gen_064.pth', 'critic.pth', 'gan.pth'):
        a, b = [torch.load(tmp_path/'models'/'two'/f'{name}.rank{r}', weights_only=True) for r in (0, 1)]
        assert all(torch.equal(a[k], b[k]) for k in a), name
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', '--', 'launch.py']   # or another's launcher
    out = launched([*torchrun, 'pretrain-gen', *ask[1:], '--run', 'three'], cwd=tmp_path, stdout=subprocess.PIPE, text=True).communicate()[0]
    assert out.count('The generator is in') == 1                     # the first process speaks for all
    a, b = [torch.load(tmp_path/'models'/r/'gen_064.pth.rank1', weights_only=True) for r in ('two', 'three')]
    assert all(torch.allclose(a[k], b[k]) for k in a)

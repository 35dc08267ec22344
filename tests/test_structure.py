"""Data flows one way: a module imports only modules whose notebooks have a smaller number."""
import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules():
    "Module name -> number of its notebook."
    numbers = {}
    for nb in sorted((ROOT/'nbs').glob('*.ipynb')):
        for cell in json.loads(nb.read_text())['cells']:
            for line in cell['source']:
                if line.startswith('#| default_exp '): numbers[line.split()[2]] = nb.name.split('_')[0]
    return numbers


def imports(module):
    "Modules of the package that `module` imports, at the top or inside a function."
    tree = ast.parse((ROOT/'deoldify_lite'/f"{module.replace('.', '/')}.py").read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom): continue
        if node.level and node.module: yield '.'.join([*module.split('.')[:-node.level], node.module])
        elif node.module == 'deoldify_lite' or node.level: yield from (a.name for a in node.names)
        elif (node.module or '').startswith('deoldify_lite.'): yield node.module.split('.', 1)[1]


def test_every_module_has_a_notebook():
    folder = ROOT/'deoldify_lite'
    files = {'.'.join(p.relative_to(folder).with_suffix('').parts) for p in folder.rglob('*.py') if p.stem not in ('__init__', '_modidx')}
    assert files == modules().keys()


def test_modules_import_only_smaller_numbers():
    numbers = modules()
    backwards = [f'{m} imports {i}' for m in numbers for i in imports(m) if i in numbers and numbers[i] >= numbers[m]]
    assert len(numbers) > 10 and not backwards, backwards


def test_inference_reaches_no_training():
    reached, todo = set(), ['colorizer']
    while todo:
        for i in imports(todo.pop()):
            if i in modules() and i not in reached: reached.add(i); todo.append(i)
    assert reached and not reached & {'data', 'loss', 'learner', 'training', 'stages', 'photos', 'recipe'}, reached


def test_no_star_imports():
    assert not [m for m in modules() if 'import *' in (ROOT/'deoldify_lite'/f"{m.replace('.', '/')}.py").read_text()]


def test_no_module_needs_an_extra():
    gone = dict.fromkeys('av cv2 gradio onnx onnxruntime torchmetrics pillow_heif nbdev'.split())
    code = f"import sys; sys.modules.update({gone}); from importlib import import_module\nfor m in {sorted(modules())}: import_module('deoldify_lite.' + m)"
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.skipif(not shutil.which('make'), reason='needs make')
def test_make_passes_on_what_is_given():
    names = 'MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL RUN DATA RECIPE SIZES EPOCHS GPUS IN OUT TEST'.split()
    env = {k: v for k, v in os.environ.items() if k not in names}
    def make(*args): return subprocess.run(['make', '-n', *args], cwd=ROOT, env=env, capture_output=True, text=True)
    def last(*args): return shlex.split(make(*args).stdout.splitlines()[-1])[1:]
    assert last('pretrain-gen', 'DATA=p q', 'RUN=r', 'RECIPE=demo', 'SIZES=64 128', 'EPOCHS=2', 'GPUS=2') == [
        'pretrain-gen', '--run', 'r', '--data', 'p q', '--recipe', 'demo', '--sizes', '64 128', '--epochs', '2', '--gpus', '2']
    assert last('colorize', 'IN=a', 'OUT=b') == ['colorize', 'a', '-o', 'b']
    assert last('video', 'IN=a', 'OUT=b', 'RUN=r') == ['video', 'a', '-o', 'b', '--model', 'models/r/generator.safetensors']
    assert last('compare', 'DATA=a', 'TEST=b c', 'RECIPE=zhang', 'OUT=d') == ['compare', '--data', 'a', '--test', 'b', '--test', 'c', '--recipe', 'zhang', '-o', 'd']
    assert 'IN= is missing' in make('video').stderr


README = (ROOT/'README.md').read_text()


def understood(*args):
    "Does the command line take these words? Nothing is done."
    import typer

    from deoldify_lite.cli import app
    command = typer.main.get_command(app).commands[args[0]]
    if len(args) > 1: command.make_context(args[0], list(args[1:]))   # a name alone speaks of the command, and is no call


def test_the_readmes_sizes_of_a_generator(tmp_path):
    from deoldify_lite.generator import generators
    from deoldify_lite.pickled import export_learner
    from deoldify_lite.recipe import recipes
    sizes = []
    for recipe in recipes['deoldify'], recipes['deoldify-cpu']:
        export_learner(generators[recipe.generator](**recipe.generator_args).eval(), tmp_path/'g.pkl', 64)
        sizes.append(round((tmp_path/'g.pkl').stat().st_size / 1e6))
    assert '{} MB each for `deoldify`, {} MB for `deoldify-cpu`'.format(*sizes) in README


def test_the_readmes_commands_are_understood():
    blocks = [line.split('#')[0] for block in re.findall(r'```bash\n(.*?)```', README, re.S) for line in block.splitlines()]
    spans = [code for line in README.splitlines() for code in re.findall(r'`([^`]+)`', line)]
    ours = [shlex.split(code.replace('...', ''))[1:] for code in blocks + spans if code.startswith('deoldify-lite ')]
    made = [shlex.split(code) for code in blocks + spans if code.startswith('make ') and code.split()[1].islower()]
    assert len(ours) > 10 and len(made) > 10
    for args in ours: understood(*args)
    for args in made if shutil.which('make') else []: subprocess.run([*args, '-n'], cwd=ROOT, check=True, capture_output=True)

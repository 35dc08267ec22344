"""Data flows one way: a module imports only modules whose notebooks have a smaller number."""
import ast
import json
from pathlib import Path

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
        if node.level and node.module: yield node.module
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

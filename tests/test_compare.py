"""One table of several systems: the same photos, the same measure, and nothing done twice."""
import json
import shutil

import pytest
from PIL import Image
from test_cli import fails, run
from test_stages import shrunk

from deoldify_lite.compare import compare
from deoldify_lite.core import RELEASED, UserError
from deoldify_lite.evaluate import evaluate
from deoldify_lite.recipe import recipes


@pytest.fixture
def parts(photos, tmp_path):
    "The photos in three folders: to learn from, and two to measure on."
    for part, names in dict(data='2345', test0='0', test1='1').items():
        for name in names: shutil.copytree(photos/name, tmp_path/part/name)
    return [str(tmp_path/part) for part in ('data', 'test0', 'test1')]


def small_recipes(monkeypatch, names):
    for name in names: monkeypatch.setitem(recipes, name, shrunk(recipes[name]))


def test_compare_trains_measures_and_goes_on(parts, tmp_path, monkeypatch):
    names = ('unet-l1', 'pix2pix-resnet18')
    small_recipes(monkeypatch, names)
    data, *tests = parts
    made = compare(data, tests, tmp_path/'out', tmp_path/'runs', names, 64, 'cpu')
    text = made.read_text()
    for word in ('unet-l1', 'pix2pix-resnet18', 'grey copy', 'constant chroma', 'PSNR', 'AuC balanced'): assert word in text
    costs = {row.split(' | ')[0][2:]: row.split(' | ') for row in text.split('## What it cost')[1].splitlines() if row.startswith('| ')}
    assert costs['pix2pix-resnet18'][-1] == 'unet-l1 |' and int(costs['unet-l1'][1].replace(',', '')) > 0
    results = json.loads((tmp_path/'out'/f'comparison-{tmp_path.name}-test0.json').read_text())
    assert results['protocol']['size'] == 64 and results['protocol']['photos'] == 2 and len(results['protocol']['set']) == 16
    grey = results['results']['grey copy']
    assert grey['colourfulness'] < 1e-3 and grey['ab_distance'] == pytest.approx(1, abs=.02) and results['results']['unet-l1']['parameters'] > .1
    sheet = Image.open(tmp_path/'out'/f'comparison-{tmp_path.name}-test0.jpg')
    assert sheet.width > 4 * 100
    model = tmp_path/'runs'/'unet-l1'/'generator.safetensors'
    scaled = evaluate([f'{model}@0', model, f'{model}@0.5'], tests[0], tmp_path/'out'/'scaled.md', 64, device='cpu')
    assert scaled['unet-l1, chroma x 0']['colourfulness'] == grey['colourfulness']
    assert 0 < scaled['unet-l1, chroma x 0.5']['colourfulness'] < .9 * scaled['unet-l1']['colourfulness']
    made.write_text(text + '## What we see\n\nColours.\n')
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.rglob('*') if f.is_file() and f.name != 'comparison.md'}
    again = compare(data, tests, tmp_path/'out', tmp_path/'runs', names, 64, 'cpu')
    assert again.read_text() == text + '## What we see\n\nColours.\n' and stamps == {f: f.stat().st_mtime_ns for f in stamps}


def test_a_recipe_that_is_none_is_said_before_the_work(photos, tmp_path):
    with pytest.raises(UserError, match="Unknown recipe 'unet-l3'"):
        compare(str(photos), [], tmp_path, tmp_path/'runs', ('unet-l1', 'unet-l3'), device='cpu')
    assert not (tmp_path/'runs').exists()


def test_photos_to_learn_from_are_not_measured_on(parts, tmp_path):
    data, test, _ = parts
    shutil.copy(f'{test}/0/0.png', f'{data}/2/copy.png')
    with pytest.raises(UserError, match='1 photos of .* are among those of'): compare(data, [test], tmp_path/'out', tmp_path/'runs', device='cpu')
    assert not (tmp_path/'runs').exists()


def test_evaluate_refuses_what_it_cannot_measure(photos, tmp_path):
    (tmp_path/'empty').mkdir()
    fails('There is no file', 'evaluate', 'none.safetensors', '--data', photos, '-o', 'x.md', cwd=tmp_path)
    fails('no image file', 'evaluate', RELEASED, '--data', tmp_path/'empty', '-o', 'x.md', cwd=tmp_path)
    for out in tmp_path, 'x.json': fails('should be a Markdown file', 'evaluate', RELEASED, '--data', photos, '-o', out, cwd=tmp_path)
    fails('is in the way', 'pack', RELEASED, '-o', tmp_path, cwd=tmp_path)
    assert run('evaluate', '--help', cwd=tmp_path).returncode == 0 and not (tmp_path/'x.md').exists()

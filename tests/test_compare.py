"""One table of several systems: the same photos, the same measure, and nothing done twice."""
import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image
from test_cli import fails, run
from test_stages import shrunk

from deoldify_lite.compare import compare
from deoldify_lite.core import RELEASED, UserError
from deoldify_lite.evaluate import evaluate, measured_on
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
    costs = {row.split(' | ')[0][2:]: row.split(' | ') for row in text.split('## What it cost')[1].split('## ')[0].splitlines() if row.startswith('| ')}
    assert costs['pix2pix-resnet18'][-2:] == ['unet-l1', 'l1 |'] and costs['unet-l1'][-2:] == ['random weights', 'l1 |']
    grey = json.loads((tmp_path/'out'/'comparison'/'baselines.json').read_text())['measured'][f'{tmp_path.name}-test0']['grey copy']
    seconds = {name: [float(s.replace(',', '') or 0) for s in row[2:4]] for name, row in costs.items() if name in names}
    assert seconds['unet-l1'][0] == seconds['unet-l1'][1] > 0 == seconds['pix2pix-resnet18'][0]  # the GAN has no stage 1 of its own
    assert text.count('Left out: FID and LPIPS') == (0 if 'fid' in grey else len(tests))
    label = f'{tmp_path.name}-test0'
    row = {name: json.loads((tmp_path/'out'/'comparison'/f'{name}.json').read_text()) for name in ('baselines', *names)}
    protocol = row['unet-l1']['of']['protocols'][label]
    assert protocol['size'] == 64 and protocol['photos'] == 2 and len(protocol['set']) == 16 and protocol['data'] == label
    assert grey['colourfulness'] < 1e-3 and grey['ab_distance'] == pytest.approx(1, abs=.02)
    assert row['unet-l1']['measured'][label]['unet-l1']['parameters'] > .1 and not row['unet-l1']['checkpoints']
    gan = row['pix2pix-resnet18']
    assert gan['picked'] in [c['checkpoint'] for c in gan['checkpoints']] and f"| {gan['picked']:.0f} |" in text.split('## Checkpoints')[1]
    sheet = Image.open(tmp_path/'out'/f'comparison-{label}.jpg')
    assert sheet.width > 4 * 128 and sheet.height > 2 * 128
    model = tmp_path/'runs'/'unet-l1'/'generator.safetensors'
    scaled = evaluate([f'{model}@0', model, f'{model}@0.5'], tests[0], tmp_path/'out'/'scaled.md', 64, device='cpu')
    assert scaled['unet-l1, chroma x 0']['colourfulness'] == grey['colourfulness']
    assert 0 < scaled['unet-l1, chroma x 0.5']['colourfulness'] < .9 * scaled['unet-l1']['colourfulness']
    made.write_text(text + '## What we see\n\nColours.\n')
    shutil.rmtree(tmp_path/'runs')                                    # rows are enough
    def stamps(): return {f: f.stat().st_mtime_ns for f in (tmp_path/'out'/'comparison').iterdir()}
    before = stamps()
    def again(): return compare(data, tests, tmp_path/'out', tmp_path/'runs', names, 64, 'cpu').read_text()
    assert again() == text + '## What we see\n\nColours.\n' and stamps() == before and not (tmp_path/'runs').exists()
    assert f'DATA={tmp_path.name}/data' in compare(data, tests, tmp_path/'out', tmp_path/'runs', names[:1], 64, 'cpu').read_text()
    assert 'pix2pix-resnet18' in made.read_text()                     # a row that is not asked for stays
    with pytest.raises(UserError, match='on other photos: choose another folder'):
        compare(data, tests[:1], tmp_path/'out', tmp_path/'runs', names, 64, 'cpu')
    assert stamps() == before and 'Colours.' in made.read_text()
    old = row['pix2pix-resnet18']
    for recipe, field in (old['of']['recipe'], 'flip'), (old['of']['recipe']['gan'], 'patience'), (old['of']['recipe']['start'], 'zoom'): del recipe[field]
    (tmp_path/'out'/'comparison'/'pix2pix-resnet18.json').write_text(json.dumps(old))
    before = stamps()
    again()
    assert stamps() == before and not (tmp_path/'runs').exists()      # of a version that had fewer fields
    monkeypatch.setitem(recipes, 'unet-l1', replace(recipes['unet-l1'], wd=.1))
    again()
    assert {f.name for f, at in stamps().items() if at == before[f]} == {'baselines.json', *(f'baselines-{tmp_path.name}-test{i}.jpg' for i in (0, 1))}


def test_two_folders_of_one_name_are_refused(parts, tmp_path):
    shutil.copytree(parts[1], tmp_path/'other'/tmp_path.name/'test0')
    with pytest.raises(UserError, match='called alike'): compare(parts[0], [parts[1], tmp_path/'other'/tmp_path.name/'test0'], tmp_path/'out', device='cpu')
    assert not (tmp_path/'out').exists()


def test_a_recipe_that_is_none_is_said_before_the_work(photos, tmp_path):
    with pytest.raises(UserError, match="Unknown recipe 'unet-l3'"):
        compare(str(photos), [], tmp_path, tmp_path/'runs', ('unet-l1', 'unet-l3'), device='cpu')
    assert not (tmp_path/'runs').exists()


def test_photos_to_learn_from_are_not_measured_on(parts, tmp_path):
    data, test, _ = parts
    shutil.copy(f'{test}/0/0.png', f'{data}/2/copy.png')
    with pytest.raises(UserError, match='1 photos of .* are among those of'): compare(data, [test], tmp_path/'out', tmp_path/'runs', device='cpu')
    assert not (tmp_path/'runs').exists()


def test_grey_photos_are_measured_when_asked(photos, tmp_path):
    shutil.copytree(photos, tmp_path/'data')
    Image.open(next((tmp_path/'data').rglob('*.png'))).convert('L').save(tmp_path/'data'/'grey.png')
    few, all_ = measured_on(tmp_path/'data', 64), measured_on(tmp_path/'data', 64, grey=True)
    assert len(all_[0]) == len(few[0]) + 1 and all_[1]['set'] != few[1]['set'] and 'grey' not in all_[1]['left_out']


def test_evaluate_refuses_what_it_cannot_measure(photos, tmp_path):
    (tmp_path/'empty').mkdir()
    fails('There is no file', 'evaluate', 'none.safetensors', '--data', photos, '-o', 'x.md', cwd=tmp_path)
    fails('no image file', 'evaluate', RELEASED, '--data', tmp_path/'empty', '-o', 'x.md', cwd=tmp_path)
    for out in tmp_path, 'x.json': fails('should be a Markdown file', 'evaluate', RELEASED, '--data', photos, '-o', out, cwd=tmp_path)
    fails('is in the way', 'pack', RELEASED, '-o', tmp_path, cwd=tmp_path)
    assert run('evaluate', '--help', cwd=tmp_path).returncode == 0 and not (tmp_path/'x.md').exists()

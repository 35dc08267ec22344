"""The five stages on real photos, with a recipe that trains in seconds."""
import errno
import json
import math
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot
import numpy as np
import pytest
import torch
from conftest import die, from_nothing
from fastai.learner import Learner
from PIL import Image
from test_cli import fails, run

import deoldify_lite.stages as stages
from deoldify_lite.color import as_photo, denormalize, luma, normalize, rgb_to_ab
from deoldify_lite.colorizer import Colorizer
from deoldify_lite.core import Run, UserError, read_table, record, write_table
from deoldify_lite.data import Augment, PhotoSet, cache_photos, critic_dls, decode, photo_loader
from deoldify_lite.export import save_generator
from deoldify_lite.generator import encoder, generators
from deoldify_lite.learner import GanLoss, GanModel, Resume, Turns, critic_learner
from deoldify_lite.metrics import pick
from deoldify_lite.pickled import export_learner
from deoldify_lite.recipe import Fit, from_json, recipes
from deoldify_lite.report import write_report
from deoldify_lite.training import Training, open_training, save_weights


def start(folder, photos=None, recipe='tiny', **kwargs):
    return open_training(Run(f'{folder}/run'), photos and str(photos), recipe, device='cpu', **kwargs)


@pytest.mark.parametrize('device, name', [('cuda', 'deoldify'), ('mps', 'deoldify-cpu'), ('cpu', 'deoldify-cpu')])
def test_a_new_run_takes_the_recipe_for_its_machine(photos, tmp_path, monkeypatch, capsys, device, name):
    for one in 'deoldify', 'deoldify-cpu': monkeypatch.setitem(recipes, one, replace(recipes['tiny'], name=one))
    monkeypatch.setattr('deoldify_lite.training.best_device', lambda asked: asked)
    assert open_training(Run(f'{tmp_path}/run'), str(photos), device=device).recipe.name == name
    assert f"Recipe: '{name}'" in capsys.readouterr().out
    assert open_training(Run(f'{tmp_path}/run'), device='cpu').recipe.name == name and not capsys.readouterr().out   # a run keeps its own


@pytest.fixture(scope='module')
def finished(tmp_path_factory, photos):
    "A run with all five stages done."
    with pytest.MonkeyPatch.context() as m:
        from_nothing(m)
        folder = tmp_path_factory.mktemp('finished')
        training = start(folder, photos)
        stages.export(training)
        write_report(training)
    return training


ORDER = ['gen_032.pth', 'gen_048.pth', 'generated', 'generated.csv', 'critic.pth', 'gan', 'gan.pth']


def begun(finished, folder, photos, missing=None, recipe='tiny'):
    "A run that has what `finished` had made before the file `missing`."
    t, done = start(folder, photos, recipe), ORDER[:ORDER.index(missing)] if missing else ORDER
    for n in done: (shutil.copytree if (finished.run/n).is_dir() else shutil.copy)(finished.run/n, t.run/n)
    write_table(t.run/'history.csv', [r for r in read_table(finished.run/'history.csv') if f"{r['step']}.pth" in done])
    return t


def weights(training, name='gan.pth'): return torch.load(training.run/name, weights_only=True)
def equal(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_every_file_of_the_design_is_there(finished):
    names = ['recipe.json', 'photos.csv', 'gen_032.pth', 'gen_048.pth', 'generated', 'generated.csv', 'critic.pth', 'gan/log.csv',
             'gan.pth', 'history.csv', 'generator.pkl', 'generator.safetensors', 'report.png']
    assert [n for n in names if not finished.run.has(n)] == []
    assert not list(finished.run.path.rglob('*.part*')) and not finished.run.has('cache')
    assert Image.open(finished.run/'report.png').size[0] > 500


def test_weights_are_handed_on_and_change(finished):
    small, large, gan = [weights(finished, n) for n in ('gen_032.pth', 'gen_048.pth', 'gan.pth')]
    assert small.keys() == large.keys() == gan.keys() and not equal(small, large)
    fresh = finished.generator().state_dict()
    assert sum((large[k] - small[k]).abs().mean() for k in small if large[k].is_floating_point()) < sum(
        (large[k] - fresh[k]).abs().mean() for k in small if large[k].is_floating_point())


def test_a_recipe_can_show_folders_alike(tmp_path, photos, monkeypatch):
    for f in sorted(photos.rglob('*.png')):                      # ten photos of one kind, two of another
        kind = tmp_path/'photos'/('few' if f.parent.name == '5' else 'many')
        kind.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, kind/f'{f.parent.name}{f.name}')
    monkeypatch.setitem(recipes, 'tiny', replace(recipes['tiny'], balance=1.))
    t = start(tmp_path, tmp_path/'photos')
    kinds = [f.parent.name for f in t.photos.files('train')]
    assert kinds.count('few') < 3 < kinds.count('many')
    shown = [kinds[i] for i in t.loaders(t.recipe.pretrain[0], 'gen_048').train.get_idxs()]
    assert shown.count('few') == shown.count('many') == len(shown) // 2


def test_the_critic_learns_on_photos_as_the_gan_will_show_them(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes, 'tiny', replace(recipes['tiny'], rotate=10., zoom=1.2, flip=.3))
    t, real, made = begun(finished, tmp_path, photos, 'critic.pth'), stages.critic_dls, []
    monkeypatch.setattr(stages, 'critic_dls', lambda *args: made.append(real(*args)) or made[-1])
    stages.pretrain_critic(t)
    shown = [s.augment for s in (*made[0].train.dataset.sets, t.loaders(t.recipe.gan, 'gan').train.dataset)]
    assert shown == [Augment(10., 1.2, .3)] * 3 and made[0].valid.dataset.sets[0].augment is None


def test_a_generator_looks_at_photos_at_the_size_that_it_was_trained_at_last():
    assert [Training(None, recipes[n], None).size for n in ('deoldify', 'deoldify-cpu', 'scenes', 'pix2pix')] == [192, 96, 64, 64]


def test_history_has_every_epoch_of_every_stage(finished):
    rows = read_table(finished.run/'history.csv')
    recipe = finished.recipe
    planned = {(s, str(e)) for s, f in zip(['gen_032', 'gen_048', 'critic', 'gan'], [*recipe.pretrain, *recipe.critic_fits, recipe.gan])
               for e in range(f.epochs)}
    assert {(r['step'], r['epoch']) for r in rows} == planned
    for r in rows:
        assert math.isfinite(float(r['loss'])) and float(r['photos_per_s']) > 0
        assert ('psnr' in r and r['psnr']) if r['step'] != 'critic' else 0 <= float(r['accuracy']) <= 1


def test_generations_are_of_the_listed_photos_and_keep_their_luma(finished):
    rows = read_table(finished.run/'generated.csv')
    train, valid = [{str(f) for f in finished.photos.files(s)} for s in ('train', 'valid')]
    assert {r['real'] for r in rows if r['split'] == 'train'} == train and {r['real'] for r in rows if r['split'] == 'valid'} == valid
    for r in rows[:3]:
        made = Image.open(finished.run/r['generated'])
        real = Image.fromarray(stages.decode(r['real'], made.width))
        assert np.abs(np.asarray(made.convert('L'), int) - np.asarray(real.convert('L'), int)).max() <= 2


def test_gan_log_and_pick(finished):
    rows = read_table(finished.run/'gan'/'log.csv')
    assert [int(r['checkpoint']) for r in rows] == list(range(len(rows))) and len(rows) >= 3
    assert int(rows[-1]['n_critic']) > 0 and int(rows[-1]['n_generator']) > 0
    assert int(rows[0]['steps']) == 0
    best = stages.pick_checkpoint(finished.run)
    assert best == pick(rows, float(rows[0]['psnr']))
    assert equal(weights(finished), weights(finished, f"gan/{int(best['checkpoint']):03}.pth"))
    assert equal(weights(finished, 'gan/000.pth'), weights(finished, 'gen_048.pth'))


def test_the_log_is_in_order_whatever_happened(finished, tmp_path):
    run = Run(str(tmp_path/'run'))
    for number in (0, 1, 3, 2): record(run/'gan'/'log.csv', dict(checkpoint=number), dict(psnr=20. - number, ab_distance=.5))
    assert [r['checkpoint'] for r in stages.gan_log(run)] == ['0', '1', '2', '3']
    assert stages.pick_checkpoint(run)['checkpoint'] == '0'


def test_a_gan_that_stops_early_is_in_the_history(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, 'stale', lambda rows, *args: len(rows) > 1)
    t = begun(finished, tmp_path, photos, 'gan')
    stages.train_gan(t)
    rows = [r for r in read_table(t.run/'history.csv') if r['step'] == 'gan']
    assert 0 < sum(int(r['seen']) for r in rows) < t.recipe.gan.seen and not rows[-1]['psnr']
    write_report(t)


def test_two_processes_share_the_generations(finished, photos, tmp_path, monkeypatch):
    shutil.copytree(finished.run.path, tmp_path/'run')
    shutil.rmtree(tmp_path/'run'/'generated')
    (tmp_path/'run'/'generated.csv').unlink()
    monkeypatch.setattr(stages, 'world', lambda: 2)
    for rank in (1, 0):                                           # one after the other: the worst of races
        monkeypatch.setattr(stages, 'rank', lambda: rank)
        rows = stages.save_generations(start(tmp_path, recipe=None))
        if rank: assert sum((tmp_path/'run'/r['generated']).exists() for r in rows) == len(rows) // 2
    assert rows and all((tmp_path/'run'/r['generated']).exists() for r in rows)


def test_nothing_finished_is_done_twice(finished, photos):
    files = {p: p.stat().st_mtime_ns for p in finished.run.path.rglob('*') if p.is_file() and p.name != '.lock'}
    stages.export(start(finished.run.path.parent, photos))
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_both_exports_answer_alike_in_a_fresh_process(finished, photos):
    photo = next(photos.rglob('*.png'))
    Image.open(photo).convert('RGB').resize((48, 48)).save(finished.run/'square.png')
    code = f'''import warnings; warnings.simplefilter('ignore')
from fastai.learner import load_learner
from fastai.vision.core import PILImage
learn = load_learner({str(finished.run/'generator.pkl')!r})
for name,photo in dict(p={str(photo)!r}, s={str(finished.run/'square.png')!r}).items():
    PILImage.create(learn.predict(photo)[0]).save({str(finished.run.path)!r} + f'/{{name}}.png')'''
    subprocess.run([sys.executable, '-c', code], check=True, cwd='/')
    made = Image.open(finished.run/'p.png')
    assert made.mode == 'RGB' and min(made.size) == 48
    square = Colorizer.load(finished.run/'generator.safetensors')(Image.open(finished.run/'square.png'))
    assert np.abs(np.asarray(square, int) - np.asarray(Image.open(finished.run/'s.png'), int)).max() <= 1
    a, b = [np.asarray(Colorizer.load(finished.run/f'generator.{e}')(Image.open(photo)), int) for e in ('pkl', 'safetensors')]
    assert np.abs(a - b).max() <= 1 and np.ptp(a, axis=-1).max() > 0
    sizes = [(finished.run/f'generator.{e}').stat().st_size for e in ('pkl', 'safetensors')]
    assert sizes[0] < sizes[1] * 1.1 + 2**20                         # the generator and no loss network


def test_colorize_reads_either_export(finished, photos, tmp_path):
    (finished.run/'report.png').unlink()
    assert run('export', '--run', finished.run.path, cwd=tmp_path).returncode == 0 and finished.run.has('report.png')
    shutil.copy(next(photos.rglob('*.png')), tmp_path/'in.png')
    for kind in ('safetensors', 'pkl'):
        out = run('colorize', 'in.png', '-o', f'{kind}.png', '--model', finished.run/f'generator.{kind}', cwd=tmp_path)
        assert out.returncode == 0, out.stderr
    a, b, source = [np.asarray(Image.open(tmp_path/n).convert('RGB'), int) for n in ('safetensors.png', 'pkl.png', 'in.png')]
    assert a.shape == source.shape and np.abs(a - b).max() <= 1
    before = (tmp_path/'in.png').read_bytes()
    fails('is an input', 'colorize', 'in.png', '-o', 'in.png', '--model', finished.run/'generator.safetensors', cwd=tmp_path)
    assert (tmp_path/'in.png').read_bytes() == before


def test_recipe_is_saved_resolved(finished):
    recipe = from_json(json.loads((finished.run/'recipe.json').read_text()))
    assert recipe == finished.recipe and recipe.encoder_source == 'random' and all(f.epochs for f in recipe.pretrain)
    assert all(r.checkpoint_seconds <= 60 for r in recipes.values())     # at most a minute is lost


class Killed(BaseException): pass


def kill(): raise Killed
def interrupt(): raise KeyboardInterrupt


def test_a_critic_that_learned_too_little_is_said(finished, photos, tmp_path):
    t = begun(finished, tmp_path, photos, 'critic.pth')
    t = replace(t, recipe=replace(t.recipe, critic_target=1.01))
    with pytest.warns(UserWarning, match="The critic tells .* right, less than the recipe's 101%"): stages.pretrain_critic(t)


STAGES = [('gen_032', 'pretrain_generator', 3), ('gen_048', 'pretrain_generator', 1), ('critic', 'pretrain_critic', 4), ('gan', 'train_gan', 5)]


@pytest.mark.parametrize('step, name, batch', STAGES)
def test_killed_in_any_stage_ends_with_the_same_weights(finished, photos, tmp_path, monkeypatch, step, name, batch):
    training = begun(finished, tmp_path, photos, 'gan' if step == 'gan' else f'{step}.pth')
    with monkeypatch.context() as m:
        die(m, kill, batch, step)
        with pytest.raises(Killed): getattr(stages, name)(training)
    assert training.run.has(f'{step}.part.pth') and not training.run.has(f'{step}.pth')
    getattr(stages, name)(start(tmp_path, photos, recipe=None))
    assert equal(weights(training, f'{step}.pth'), weights(finished, f'{step}.pth'))
    if step == 'gan': assert read_table(training.run/'gan'/'log.csv') == read_table(finished.run/'gan'/'log.csv')


def test_a_kill_while_photos_are_measured_costs_no_training(finished, photos, tmp_path, monkeypatch):
    training = begun(finished, tmp_path, photos, 'gen_048.pth', 'often')
    with monkeypatch.context() as m:
        m.setattr(Resume, 'after_batch', lambda self: setattr(self, 'batch', self.batch + 1))      # no checkpoint but the one before measuring
        m.setattr('deoldify_lite.learner.Log.before_validate', lambda self: kill())
        with pytest.raises(Killed): stages.pretrain_generator(training)
    kept = stages.load_state(training.run/'gen_048.part.pth')
    assert (kept['epoch'], kept['batch']) == (0, training.recipe.pretrain[1].photos // 2)
    stages.pretrain_generator(start(tmp_path, photos, recipe=None))
    assert equal(weights(training, 'gen_048.pth'), weights(finished, 'gen_048.pth'))


def test_the_critic_is_shown_both_kinds_alike_in_its_own_stage_and_in_the_gan(finished):
    "One batch, the generated first: judged apart, batch norm would tell them by their means."
    t, seen = finished, []
    critic, generator = t.critic('critic.pth'), t.generator('gen_048.pth')
    critic.register_forward_hook(lambda net, given, out: seen.append(given[0].detach()))
    pairs = [(t.run/r['generated'], Path(r['real'])) for r in stages.save_generations(t)]
    dls = critic_dls(pairs, pairs[:2], 48, 2)
    assert dls.one_batch()[1].tolist() == [0, 0, 1, 1]
    learn = critic_learner(dls, critic)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    x, y = t.loaders(t.recipe.gan, 'gan').one_batch()
    model = GanModel(generator, critic)
    model.train()
    model.take_turn('critic')
    GanLoss(model, t.content)(model(x), y)
    assert {len(s) for s in seen} == {4}
    for fake, real in (s.chunk(2) for s in (seen[0], seen[-1])):
        assert torch.allclose(luma(denormalize(fake)), luma(denormalize(real)), atol=.02) and not torch.equal(fake, real)
    assert torch.equal(seen[-1][2:], torch.Tensor(y))


def test_generations_resume(finished, photos, tmp_path):
    training = begun(finished, tmp_path, photos, 'generated')
    rows = stages.save_generations(training)
    (training.run/'generated.csv').unlink()
    (training.run/rows[0]['generated']).unlink()
    kept = training.run/rows[1]['generated']
    stamp = kept.stat().st_mtime_ns
    assert stages.save_generations(training) == rows and kept.stat().st_mtime_ns == stamp
    assert Image.open(training.run/rows[0]['generated']).size == Image.open(kept).size


@pytest.mark.parametrize('step, name, batch', STAGES)
def test_a_full_disk_in_any_stage_loses_nothing(finished, photos, tmp_path, monkeypatch, step, name, batch):
    training, save, calls = begun(finished, tmp_path, photos, 'gan' if step == 'gan' else f'{step}.pth', 'often'), torch.save, []

    def full(obj, f):
        calls.append('opt' in obj)                                       # a checkpoint of a step, which can go on
        if calls[-1] and sum(calls) == 3: open(f, 'wb').write(b'half'); raise OSError(28, 'No space left on device')
        save(obj, f)

    with monkeypatch.context() as m:
        m.setattr('torch.save', full)
        with pytest.raises(OSError): getattr(stages, name)(training)
    assert stages.load_state(training.run/f'{step}.part.pth')['batch'] == 2
    assert not list(training.run.path.glob('.*.part*'))
    getattr(stages, name)(start(tmp_path, photos, recipe=None))
    assert equal(weights(training, f'{step}.pth'), weights(finished, f'{step}.pth'))


def test_what_a_kill_left_behind_a_finished_step_goes(finished, photos, tmp_path):
    training = begun(finished, tmp_path, photos)
    left = [training.run/f for f in ('gen_032.part.pth', 'gan.part.pth', 'cache/train_048.npy')]
    going_on = training.run/'other.part.pth'
    (training.run/'cache').mkdir()
    for f in (*left, going_on): f.write_text('left')
    stages.export(start(tmp_path, photos))
    assert not any(f.exists() for f in left) and going_on.exists()


@pytest.fixture
def small_files():
    "No file may have more than 200 KB, which torch and safetensors meet as they do a full disk: somewhere in C++."
    resource = pytest.importorskip('resource')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_really_full(finished, photos, tmp_path, small_files):
    out = run('pretrain-gen', '--recipe', 'often', '--sizes', '32', '--run', 'x', '--data', photos, cwd=tmp_path)
    assert out.returncode == 1 and out.stderr.endswith('Error: The disk holds no file of this size: choose another disk, or for a film a higher --crf.')
    net = finished.generator('gan.pth').eval()
    for write in (lambda f: export_learner(net, f, 48), lambda f: save_generator(net, f, 'unet', finished.recipe.generator_args, 48),
                  lambda f: cache_photos(finished.photos.files('train'), 128, f)):
        with pytest.raises(OSError) as e: write(tmp_path/'file')
        assert e.value.errno == errno.EFBIG
    assert not (tmp_path/'file').exists() and not list(tmp_path.rglob('*.part*'))


def test_decoding_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    files, whole, seen = finished.photos.files('train'), decode, []
    want = np.stack([whole(f, 64) for f in files])
    def stops(f, side):
        if len(seen) == 6: raise KeyboardInterrupt
        seen.append(f)
        return whole(f, side)
    monkeypatch.setattr('deoldify_lite.data.NOTED', 4)
    monkeypatch.setattr('deoldify_lite.data.THREADS', 1)
    monkeypatch.setattr('deoldify_lite.data.decode', stops)
    with pytest.raises(KeyboardInterrupt): cache_photos(files, 64, tmp_path/'c.npy')
    assert not (tmp_path/'c.npy').exists() and (tmp_path/'c.done').read_text() == '4'
    monkeypatch.setattr('deoldify_lite.data.decode', lambda f, side: seen.append(f) or whole(f, side))
    assert (np.load(cache_photos(files, 64, tmp_path/'c.npy')) == want).all()
    assert seen[6:] == files[4:] and [f.name for f in tmp_path.iterdir()] == ['c.npy']


def test_weights_that_are_no_numbers_are_no_result(finished, photos, tmp_path):
    training = begun(finished, tmp_path, photos, 'gen_032.pth')
    net, part = training.generator(), training.run/'gen_032.part.pth'
    part.write_text('the last good one')
    with torch.no_grad(): next(net.parameters()).view(-1)[0] = float('nan')
    says(f'not finite at its end; the last good checkpoint is {part}', save_weights, training, net, 'gen_032.pth', 'gen_032')
    assert part.exists() and not training.run.has('gen_032.pth')


def test_cycles_go_on_from_the_picked_generator(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes, 'twice', replace(recipes['tiny'], name='twice', cycles=2))
    training = begun(finished, tmp_path, photos, recipe='twice')
    stages.train_gan(training)
    assert training.run.has('gan.pth') and training.run.has('cycle2/gan.pth') and training.run.has('cycle2/critic.pth')
    assert equal(weights(training, 'gan.pth'), weights(training, 'cycle2/gan/000.pth'))
    assert stages.pick_checkpoint(training.run) == stages.pick_checkpoint(training.run, 2)                # the one that is exported
    assert not equal(weights(training, 'gan.pth'), weights(training, 'gen_048.pth'))


# Bad input: one sentence each

def says(words, f, *args, **kwargs):
    with pytest.raises(UserError) as e: f(*args, **kwargs)
    assert words in str(e.value) and '\n' not in str(e.value), str(e.value)


def test_another_recipe_or_data_set_is_named(finished, photos, tmp_path, monkeypatch):
    parent = finished.run.path.parent
    says('recipe (name: tiny -> demo', start, parent, photos, 'demo')
    says('pretrain: 2 fits -> 1 fits', start, parent, photos, 'tiny', sizes=[32])
    says('was started on the photos of', start, parent, tmp_path)
    assert start(parent, None, None).recipe == finished.recipe
    start(tmp_path, photos, sizes=[32])
    assert [f.size for f in start(tmp_path, photos).recipe.pretrain] == [32]            # the recipe's name alone changes nothing
    says('EPOCHS must be 1 or more', start, tmp_path, photos, epochs=0)
    monkeypatch.setitem(recipes, 'tiny', replace(recipes['tiny'], wd=.5))
    says(f'wd: {finished.recipe.wd:g} -> 0.5', start, parent, photos)                                     # edited since, under the same name
    assert start(parent, None, None).recipe == finished.recipe                          # not named: what was begun goes on
    monkeypatch.undo()
    (tmp_path/'run'/'recipe.json').write_text('{')
    says('recipe.json is damaged', start, tmp_path, photos)
    says('recipe.json is damaged', stages.pick_checkpoint, Run(f'{tmp_path}/run'))


def test_tables_and_photos_that_were_cut_off_are_named(finished, photos, tmp_path):
    training = begun(finished, tmp_path, photos, 'critic.pth')
    for name, ask in ('generated.csv', lambda: stages.pretrain_critic(training)), ('gan/log.csv', lambda: stages.pick_checkpoint(training.run)):
        (training.run/name).parent.mkdir(exist_ok=True)
        text = (finished.run/name).read_text()
        (training.run/name).write_text(text[:text.rindex(',')])
        says(f'{name} is damaged', ask)
    made = cache_photos(training.photos.files('train'), 64, tmp_path/'c.npy')
    made.write_bytes(made.read_bytes()[:-1000])
    says('c.npy is damaged: delete it', PhotoSet, training.photos.files('train'), 64, cache=made)


@pytest.mark.parametrize('command, change', [('pretrain-critic', dict(critic_fits=())), ('save-gen', dict(critic_fits=())), ('train-gan', dict(gan=None)),
                                             ('pretrain-gen', dict(pretrain=()))])
def test_a_stage_that_a_recipe_has_not(photos, tmp_path, monkeypatch, command, change):
    monkeypatch.setitem(recipes, 'less', replace(recipes['tiny'], name='less', **change))
    fails("Recipe 'less' has no", command, '--recipe', 'less', '--run', 'x', '--data', photos, cwd=tmp_path)


def test_changed_photos_are_named(photos, tmp_path):
    folder = tmp_path/'photos'
    shutil.copytree(photos, folder)
    start(tmp_path, folder)
    gone = next(folder.rglob('*.png'))
    gone.unlink()
    says(f'1 gone, for example {gone.relative_to(folder)}.', start, tmp_path, folder)


def test_photo_deleted_during_training(photos, tmp_path):
    folder = tmp_path/'photos'
    shutil.copytree(photos, folder)
    training = start(tmp_path, folder)
    gone = training.photos.files('train')[0]
    gone.unlink()
    says(f'{gone} is gone', stages.pretrain_generator, training)


def test_fewer_photos_than_a_batch(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes, 'wide', replace(recipes['tiny'], name='wide', pretrain=(Fit(32, 64, 8, 1e-3, 1e-3),)))
    says('fewer than a batch of 64', lambda: stages.pretrain_generator(start(tmp_path, photos, 'wide')))


def test_checkpoint_of_another_architecture(finished, photos, tmp_path):
    training = start(tmp_path, photos)
    shutil.copy(finished.run/'critic.pth', training.run/'gen_032.pth')
    says('holds another architecture', stages.pretrain_generator, training)
    (training.run/'gen_032.pth').write_bytes((finished.run/'gen_032.pth').read_bytes()[:999])
    says('is damaged', stages.pretrain_generator, training)


@pytest.mark.parametrize('step, name, batch', STAGES)
def test_bad_loss_stops_any_stage_before_the_weights(finished, photos, tmp_path, monkeypatch, step, name, batch):
    training, one_batch, seen = begun(finished, tmp_path, photos, 'gan' if step == 'gan' else f'{step}.pth', 'often'), Learner.one_batch, []

    def spoilt(self, i, b):
        seen.append(1)
        return one_batch(self, i, b if len(seen) < 3 else (b[0] * math.nan, *b[1:]))

    monkeypatch.setattr(Learner, 'one_batch', spoilt)
    says(f'last good checkpoint is {training.run/step}.part.pth', getattr(stages, name), training)
    saved = stages.load_state(training.run/f'{step}.part.pth')
    assert saved['batch'] == 2 and all(v.isfinite().all() for v in saved['model'].values())


def test_collapse_warns(finished, tmp_path, monkeypatch):
    "Two checkpoints in a row whose colours spread over less than a tenth of the real ones' range."
    same = torch.nn.Identity()                                       # answers what it is given: grey
    grey, shown = stages.measure(same, photo_loader(finished.photos.files('valid'), 48))
    assert grey['ab_spread'] < .01
    t, learn, warned = SimpleNamespace(run=Run(f'{tmp_path}/run')), SimpleNamespace(turns=Turns()), []
    for number, spread in enumerate((.09, .11, .09, .05)):
        monkeypatch.setattr(stages, 'measure', lambda net, dl: (grey | dict(ab_spread=spread), shown))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            stages._checkpoint(t, 1, learn, same, number, None)
        warned.append(any('colours have collapsed' in str(w.message) for w in said))
    assert warned == [False, False, False, True]


def test_run_folder_that_cannot_be_written(tmp_path):
    (tmp_path/'run').write_text('a file')
    def open_it():
        with Run(f'{tmp_path}/run').open(): pass
    says('Cannot write to the run folder', open_it)


def test_the_python_of_the_readme(finished, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'models').mkdir()
    (tmp_path/'models'/'mine').symlink_to(finished.run.path)
    with Image.open(next(photos.rglob('*.*'))) as im: im.convert('L').save('old.jpg')
    code = re.search(r'```python\n(.*?)```', (Path(__file__).parents[1]/'README.md').read_text(), re.S)[1]
    assert 'Colorizer.load()' in code and 'load_learner' in code
    exec(code, {})
    matplotlib.pyplot.close('all')                                   # what `show` drew
    with Image.open('new.png') as new, Image.open('old.jpg') as old: assert new.mode == 'RGB' and new.size == old.size and len(set(new.getpixel((9, 9)))) > 1


@pytest.fixture
def gentle(monkeypatch):
    "Recipe 'finetune', as small as the others here."
    monkeypatch.setitem(recipes, 'finetune', replace(recipes['finetune'], pretrain=(Fit(48, 2, 8, 1e-5, 1e-5, spread=10.),), valid_pct=.2))


def test_finetune_starts_from_a_finished_generator(finished, photos, tmp_path, gentle):
    first = finished.run/'generator.safetensors'
    t = start(tmp_path, photos, 'finetune', start=str(first))
    assert t.recipe.encoder_source == 'start' and t.recipe.generator_args['norm'] == 'batch' and t.recipe.generator_args['width'] == .25
    out = stages.export(t)
    write_report(t)
    before, after = weights(t, 'start.pth'), weights(t, 'gen_048.pth')
    moved = [(before[k] - after[k]).abs().max() for k in before if before[k].is_floating_point() and 'running' not in k]
    assert 0 < max(moved) < .01                                      # gently
    assert not t.run.has('critic.pth') and not t.run.has('gan.pth') and not t.run.has('generated.csv')
    colour = Colorizer.load(out, 'cpu')(Image.open(next(photos.rglob('*.png'))))
    assert colour.size == (120, 100)
    says("has no GAN", stages.train_gan, t)
    says("has no critic", stages.save_generations, t)
    assert stages.export(start(tmp_path, recipe=None)) == out         # and going on needs no options
    says("was started with another recipe (start:", lambda: start(tmp_path, photos, 'finetune', start='elsewhere.safetensors'))
    again = start(tmp_path/'again', photos, 'finetune', start=str(first))
    further = start(tmp_path/'further', photos, 'finetune', start=str(out))
    assert again.recipe.seed == t.recipe.seed != further.recipe.seed     # who goes on from what came out sees the photos in another order


def test_the_critic_starts_from_weights_that_know_colours(finished, photos, tmp_path, monkeypatch):
    rates, known = (Fit(48, 2, 8, 1e-3, 1e-4, spread=100.),), {}
    monkeypatch.setitem(recipes, 'tiny', replace(recipes['tiny'], critic='resnet', critic_args=dict(backbone='resnet18'), critic_fits=rates))
    monkeypatch.setitem(recipes, 'on', replace(recipes['tiny'], name='on', start='released'))
    t = start(tmp_path/'on', photos, 'on', start=str(finished.run/'generator.safetensors'))
    with monkeypatch.context() as m:
        m.chdir(finished.run.path)
        assert start(tmp_path/'on', photos, 'on', start='./generator.safetensors').recipe == t.recipe    # the same file by another name
    assert (t.recipe.critic_fits[0].lr, t.recipe.critic_fits[0].spread) == (1e-4, 1.) and stages.critic_start(t) is None  # that encoder has seen grey photos only
    monkeypatch.setattr('deoldify_lite.export.imagenet_encoder', lambda arch: known.setdefault(arch, encoder(arch).state_dict()))
    t = start(tmp_path/'imagenet', photos)
    assert (t.recipe.critic_fits[0].lr, t.recipe.critic_fits[0].spread) == (1e-3, 100.) and equal(stages.critic_start(t), known['resnet18'])
    monkeypatch.setattr('deoldify_lite.export.imagenet_encoder', lambda arch: None)
    lost = replace(t, recipe=replace(t.recipe, encoder_source='imagenet'))
    says("was started with encoder weights from 'imagenet' and now they are from 'random'", stages.first_state, lost)


def test_a_frozen_fit_trains_the_decoder_alone(photos, tmp_path, monkeypatch):
    known = encoder('resnet18').state_dict()
    monkeypatch.setattr('deoldify_lite.export.imagenet_encoder', lambda arch: known)
    fits = Fit(32, 2, 8, 1e-3, 1e-3, spread=10., frozen=True), Fit(32, 2, 8, 1e-3, 1e-3, spread=10.)
    monkeypatch.setitem(recipes, 'tiny', replace(recipes['tiny'], pretrain=fits, critic_fits=(), gan=None))
    t = start(tmp_path, photos)
    stages.pretrain_generator(t)
    names = [k for k, v in known.items() if v.ndim == 4]                 # convolutions; fastai's norms learn in frozen layers too
    frozen, free = (weights(t, f'{name}.pth') for name in stages.gen_names(t.recipe))
    assert stages.gen_names(t.recipe) == ['gen_032_frozen', 'gen_032'] and len(names) > 15
    assert all(torch.equal(frozen[f'network.encoder.{k}'], known[k]) for k in names)
    assert not any(torch.equal(free[f'network.encoder.{k}'], known[k]) for k in names)
    begun = t.generator(None, known).state_dict()
    decoder = [k for k in frozen if 'encoder' not in k and frozen[k].ndim == 4]
    assert decoder and not any(torch.equal(begun[k], frozen[k]) or torch.equal(frozen[k], free[k]) for k in decoder)


def test_finetune_keeps_the_kind_of_input(finished, photos, tmp_path, gentle):
    says("learned from 'grey'", lambda: start(tmp_path, photos, 'finetune', start=str(finished.run/'generator.safetensors'), input='sketch'))
    says('has no stage 1', lambda: start(tmp_path, photos, 'pix2pix', epochs=2))


def test_finetune_without_a_start(photos, tmp_path, gentle, monkeypatch):
    monkeypatch.setattr('deoldify_lite.training.RELEASED', tmp_path/'none.safetensors')
    says('no released weights', lambda: start(tmp_path, photos, 'finetune'))
    says('finish that run first', lambda: start(tmp_path, photos, 'finetune', start=str(tmp_path/'other')))
    says('starts from nothing', lambda: start(tmp_path, photos, 'tiny', start='released'))
    assert not (tmp_path/'run'/'recipe.json').exists()


def test_a_gan_at_another_size_without_a_rule(photos, tmp_path, monkeypatch):
    gan = replace(recipes['tiny'].gan, picks=False)
    monkeypatch.setitem(recipes, 'scratch', replace(recipes['pix2pix'], name='scratch', generator_args=dict(depth=4, nf=4), critic_args=dict(nf=4), gan=gan))
    t = start(tmp_path, photos, 'scratch', sizes=[96])
    assert t.size == 96 and t.recipe.generator_args == dict(depth=5, nf=4)
    monkeypatch.setattr(stages, 'pick', lambda *args: pytest.fail('there is no rule'))
    stages.export(t)
    last = stages.gan_log(t.run)[-1]
    assert stages.pick_checkpoint(t.run) == last and len(stages.gan_log(t.run)) > 1
    kept = stages.load_state(t.run/'gan'/f"{int(last['checkpoint']):03}.pth")
    assert all((v == kept[k]).all() for k,v in stages.load_state(t.run/'gan.pth').items())


def test_a_gan_from_nothing(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes, 'scratch', replace(recipes['tiny'], name='scratch', pretrain=(), critic_fits=(), gan=replace(recipes['tiny'].gan, plateau=1)))
    monkeypatch.setattr(stages, 'plateau', lambda rows, wait: len(rows) == 1)
    t = start(tmp_path, photos, 'scratch')
    out = stages.export(t)
    write_report(t)
    assert t.size == 48 and out.exists() and t.run.has('gan.pth') and not t.run.has('critic.pth')
    assert {r['step'] for r in read_table(t.run/'history.csv')} == {'gan'}
    log = stages.gan_log(t.run)
    assert int(log[0]['checkpoint']) == 1                            # an untrained generator is nothing to go back to
    lrs = [float(r['lr']) for r in read_table(t.run/'history.csv')]
    assert lrs[-1] == pytest.approx(lrs[0] / 10)                     # what PSNR that stands still does
    assert float(stages.pick_checkpoint(t.run)['psnr']) >= max(float(r['psnr']) for r in log) - .3


@torch.no_grad()
def test_networks_that_learn_from_nothing_begin_around_grey():
    grey = normalize(torch.rand(4, 1, 64, 64).expand(-1, 3, -1, -1))
    for name in ('pix2pix', 'dcgan'):
        torch.manual_seed(0)
        ab = rgb_to_ab(as_photo(generators[recipes[name].generator](**recipes[name].generator_args).eval()(grey)))
        assert ab.mean((0, 2, 3)).abs().max() < 3 and ab.std() < 8, name          # of 110; random biases alone make a tint of up to 19


SYSTEMS = ('zhang', 'resnet18-cnn', 'resnet18-cnn-l1', 'resnet18-cnn-l2', 'iizuka', 'unet-l1', 'pix2pix', 'pix2pix-resnet18', 'dcgan', 'dcgan-mae')


def shrunk(recipe):
    "A system's own recipe, its photos few and small."
    small = lambda fit: fit and replace(fit, size=32, bs=2, seen=8, **(dict(checkpoints=2, plateau=min(fit.plateau, 1)) if hasattr(fit, 'plateau') else {}))
    narrow = dict(zhang=dict(width=.125), unet=dict(width=.25), iizuka=dict(width=.125), pix2pix=dict(nf=8)).get(recipe.generator, {})
    critic = dict(nf=8) if recipe.critic in ('patch-lab', 'dcgan') else {}
    return replace(recipe, generator_args=recipe.generator_args | narrow, critic_args=recipe.critic_args | critic, checkpoint_seconds=60., valid_pct=.2,
                   pretrain=tuple(map(small, recipe.pretrain)), gan=small(recipe.gan), pretext=small(recipe.pretext))


@pytest.fixture(scope='module')
def unet_run(tmp_path_factory, photos):
    with pytest.MonkeyPatch.context() as m:
        m.setitem(recipes, 'unet-l1', shrunk(recipes['unet-l1']))
        from_nothing(m)
        return stages.export(start(tmp_path_factory.mktemp('unet'), photos, 'unet-l1'))


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_system_trains_resumes_exports_and_colorizes(name, unet_run, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(recipes, name, shrunk(recipes[name]))
    options = dict(start=str(unet_run)) if recipes[name].start else {}
    with monkeypatch.context() as m:
        die(m, interrupt, 3)
        with pytest.raises(KeyboardInterrupt): stages.export(start(tmp_path, photos, name, **options))
    t = start(tmp_path, recipe=None)
    out = stages.export(t)
    write_report(t)
    assert t.run.has('prior.npy') == (name == 'zhang') and t.run.has('encoder.pth') == name.startswith('resnet18-cnn')
    assert t.run.has('gan.pth') == ('pix2pix' in name or 'dcgan' in name) and (t.recipe.encoder_source == 'classes') == name.startswith('resnet18-cnn')
    if name == 'iizuka': assert t.recipe.generator_args['n_classes'] == 6
    photo = Image.open(next(photos.rglob('*.png')))
    colour = Colorizer.load(out, 'cpu')(photo)
    assert colour.size == photo.size and np.abs(np.asarray(colour.convert('L'), int) - np.asarray(photo.convert('L'), int)).max() <= 1
    from deoldify_lite.export import export_onnx, load_generator
    generator, header = load_generator(out)
    export_onnx(generator, tmp_path/'g.onnx', header['size'])
    session = pytest.importorskip('onnxruntime').InferenceSession(str(tmp_path/'g.onnx'))
    for size in ((32, 32), (64, 96), (48, 80)):
        x = torch.randn(1, 1, *size).expand(-1, 3, -1, -1).contiguous() * .5
        with torch.no_grad(): ours = generator(x)
        assert np.abs(session.run(None, dict(grey=x.numpy()))[0] - ours.numpy()).max() < 1e-3


def test_without_folders_there_are_no_classes(photos, tmp_path, monkeypatch):
    for i, f in enumerate(sorted(photos.rglob('*.png'))): shutil.copy(f, (tmp_path/'flat').mkdir(exist_ok=True) or tmp_path/'flat'/f'{i}.png')
    monkeypatch.setitem(recipes, 'resnet18-cnn', shrunk(recipes['resnet18-cnn']))
    with pytest.warns(UserWarning, match='there are no classes'): t = start(tmp_path, tmp_path/'flat', 'resnet18-cnn')
    assert t.recipe.encoder_source == 'random' and stages.export(t).exists() and not t.run.has('encoder.pth')


@pytest.mark.parametrize('name', ('scenes', 'unet-l1', 'zhang', 'iizuka', 'pix2pix', 'dcgan'))
def test_sketches_are_coloured_whole(name, photos, tmp_path, monkeypatch, float32):
    monkeypatch.setitem(recipes, name, shrunk(recipes[name]))
    t = start(tmp_path, photos, name, input='sketch')
    out = stages.export(t)
    write_report(t)
    assert t.recipe.critic_args.get('lines', False) == (name in ('pix2pix', 'dcgan'))
    assert t.recipe.generator_args['whole'] and start(tmp_path, recipe=None).recipe == t.recipe == start(tmp_path, recipe=name).recipe
    paper = Image.new('L', (90, 60), 255)
    assert Image.open(stages.export(t).parent/'report.png').width > 300
    drawn = Colorizer.load(out, 'cpu')(paper)
    assert drawn.size == (90, 60) and np.asarray(drawn.convert('L')).mean() < 250      # light is the network's, not the paper's
    from deoldify_lite.export import export_onnx, load_generator
    generator, header = load_generator(out)
    export_onnx(generator, tmp_path/'g.onnx', header['size'])
    assert np.abs(np.asarray(Colorizer.load(tmp_path/'g.onnx')(paper), int) - np.asarray(drawn, int)).max() <= 1
    says("no input 'oil'", lambda: start(tmp_path/'b', photos, name, input='oil'))

"""What the tests share: a recipe that trains in seconds, and folders of real photos."""
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'   # tests run two at a time, and sums are the same bits only with as many threads
os.environ['CUDA_VISIBLE_DEVICES'] = ''   # and on the CPU

import pytest
from PIL import Image

from deoldify_lite.learner import Resume
from deoldify_lite.photos import sample_photos
from deoldify_lite.recipe import Fit, Gan, recipes

warnings.filterwarnings('ignore', message='No ImageNet weights')

UNET = dict(backbone='resnet18', norm='batch', width=.25)
TINY = replace(recipes['demo'], name='tiny', generator_args=UNET, loss='pixel', checkpoint_seconds=60., valid_pct=.2, critic_target=0.,
               pretrain=(Fit(32, 2, 16, 1e-3, 1e-3), Fit(48, 2, 16, 5e-4, 5e-4)), critic='patch', critic_args=dict(nf=8, n_layers=2),
               critic_fits=(Fit(48, 2, 16, 1e-3, 1e-3),), gan=Gan(48, 2, 24, 3, lr=1e-3, spread=1., max_critic=2, average=3))
recipes.setdefault('tiny', TINY)
recipes.setdefault('often', replace(TINY, name='often', checkpoint_seconds=0.))
# for two processes: batches large enough that batch norm is no lottery, rates small enough that rounding stays rounding
recipes.setdefault('pair', replace(TINY, name='pair', pretrain=(Fit(64, 8, 64, 1e-4, 1e-4),),
                                   critic_fits=(Fit(64, 8, 32, 1e-4, 1e-4),), gan=Gan(64, 8, 64, 1, lr=1e-5, spread=1., max_critic=1)))


def from_nothing(m):
    "No test waits for a network or depends on the released weights: there are neither ImageNet's nor those."
    m.setattr('deoldify_lite.export.imagenet_encoder', lambda arch: None)
    m.setattr('deoldify_lite.loss.imagenet_weights', lambda arch: None)
    m.setattr('torch.backends.mps.is_available', lambda: False)
    for module in 'export', 'training': m.setattr(f'deoldify_lite.{module}.RELEASED', Path('none'))


def die(m, end, batch, step=''):
    "Training saves after this batch of a step, and then calls `end`."
    after, seen = Resume.after_batch, []

    def after_batch(self):
        after(self)
        seen.append(self.path.name.startswith(step))
        if seen[-1] and sum(seen) == batch: self.save(); end()
    m.setattr(Resume, 'after_batch', after_batch)


@pytest.fixture(autouse=True)
def offline(monkeypatch): from_nothing(monkeypatch)


@pytest.fixture(scope='module')
def browser():
    "Debian's Chromium, where there is one; it ends before the servers that it looks at."
    found = shutil.which('chromium'), shutil.which('chromedriver')
    if not all(found): pytest.skip('needs chromium and chromedriver')
    webdriver = pytest.importorskip('selenium.webdriver')
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for arg in '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--window-size=1300,1000': options.add_argument(arg)
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    browser = webdriver.Chrome(options, webdriver.ChromeService(found[1]))
    yield browser
    browser.quit()


def wait_for(browser, css, text='', seconds=60):
    "The first visible-or-not element that `css` finds and that contains `text`."
    from selenium.webdriver.support.ui import WebDriverWait
    return WebDriverWait(browser, seconds).until(lambda b: next((e for e in b.find_elements('css selector', css) if text in e.text), None), f"'{text}' in {css}")


def asked(browser):
    "(method, address) of what the browser asked for since it was asked last."
    requests = [json.loads(e['message'])['message'].get('params', {}).get('request', {}) for e in browser.get_log('performance')]
    return {(r['method'], r['url']) for r in requests if r.get('url', '').startswith('http')}


@pytest.fixture
def float32(monkeypatch):
    "Torch computes as onnxruntime does, whatever this processor can."
    for module in 'generator', 'learner', 'stages': monkeypatch.setattr(f'deoldify_lite.{module}.native_bf16', lambda device: False)


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    "A folder of 12 real photos, small, nested: crops of the sample photos."
    folder = tmp_path_factory.mktemp('photos')
    for i, f in enumerate(sorted(sample_photos().iterdir())[:6]):
        im = Image.open(f).convert('RGB')
        for j, box in enumerate(((0, 0, .6, .6), (.4, .4, 1, 1))):
            crop = im.crop([round(v * s) for v, s in zip(box, im.size * 2)]).resize((120, 100))
            (folder/f'{i}').mkdir(exist_ok=True)
            crop.save(folder/f'{i}'/f'{j}.png')
    return folder

"Metrics against independent formulas, contact sheets by their pixels, and NoGAN's rule on made-up logs."
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, pytest, skimage, torch
from matplotlib._pylab_helpers import Gcf
from PIL import Image, ImageOps
from scipy.stats import wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from deoldify_lite.color import luma
from deoldify_lite.core import UserError, read_table, record
from deoldify_lite.measures import FullTally, learned_metrics
from deoldify_lite.metrics import (Tally, ab_histogram, as_image, colourfulness, curves, histogram_distance, pick, psnr, report, stale,
                                   tally)
from deoldify_lite.sheet import GAP, contact_sheet

def photo(name, side=96):
    "A real photo, (3, side, side) in [0, 1]."
    pixels = np.array(ImageOps.fit(Image.fromarray(getattr(skimage.data, name)()), (side, side)))
    return torch.tensor(pixels).permute(2, 0, 1) / 255

def flat(r, g, b, n=1, side=8): return torch.tensor([r, g, b], dtype=torch.float32).view(1, 3, 1, 1).repeat(n, 1, side, side)
def chroma(rgb, s): return (luma(rgb) + s * (rgb - luma(rgb))).clamp(0, 1)
def cast(rgb, *shift): return (rgb + torch.tensor(shift)[:,None,None]).clamp(0, 1)
def array(rgb): return rgb.permute(1, 2, 0).double().numpy()

REAL = torch.stack([photo(o) for o in ('astronaut', 'coffee', 'chelsea')])
GUESS = (chroma(REAL, .6) + .2 * torch.randn(REAL.shape, generator=torch.Generator().manual_seed(0)) *
         torch.tensor([.3, .6, .9]).view(3, 1, 1, 1))      # out of [0, 1] in places, and another error for each photo

# --- PSNR

def test_psnr_is_skimages_for_each_photo():
    want = [peak_signal_noise_ratio(array(r), array(p.clamp(0, 1)), data_range=1) for p,r in zip(GUESS, REAL)]
    assert max(want) - min(want) > 1                        # a mean over the batch would show
    np.testing.assert_allclose(psnr(GUESS, REAL), want, atol=1e-3)

def test_psnr_by_hand():
    grey = flat(.5, .5, .5, n=2)
    np.testing.assert_allclose(psnr(grey, grey + .1), [20, 20], atol=1e-3)
    np.testing.assert_allclose(psnr(flat(.5, .5, .8), flat(.5, .5, .5)), [10 * math.log10(3 / .09)], atol=1e-3)
    np.testing.assert_allclose(psnr(flat(7, 0, -3), flat(1, 0, 0)), [100], atol=1e-3)    # shown the same: capped

def test_psnr_is_float32_under_half_precision():
    got = psnr(REAL.bfloat16(), REAL.bfloat16())
    assert got.dtype == torch.float32 and (got > 99).all()

def test_psnr_never_broadcasts():
    with pytest.raises(ValueError, match='originals'): psnr(REAL, REAL[:1])
    with pytest.raises(ValueError): psnr(REAL[:,:1], REAL)

# --- colourfulness

def hasler(image):
    "Hasler and Suesstrunk's M3 with numpy, from the paper."
    r,g,b = (np.clip(image, 0, 1) * 255).reshape(-1, 3).T
    rg,yb = r - g,.5 * (r + g) - b
    return np.sqrt(np.var(rg) + np.var(yb)) + .3 * np.sqrt(np.mean(rg)**2 + np.mean(yb)**2)

@pytest.mark.parametrize('rgb', [REAL, GUESS, chroma(REAL, .3)], ids=['real', 'noisy', 'dull'])
def test_colourfulness_is_the_papers(rgb):
    np.testing.assert_allclose(colourfulness(rgb), [hasler(array(o)) for o in rgb], rtol=1e-4)

def test_colourfulness_by_hand():
    assert colourfulness(REAL[:,:1].repeat(1, 3, 1, 1)).tolist() == [0, 0, 0]
    red,green,blue = flat(1, 0, 0),flat(0, 1, 0),flat(0, 0, 1)
    flats = torch.cat([red, green, blue])
    np.testing.assert_allclose(colourfulness(flats), [.3 * 285.1, .3 * 285.1, .3 * 255], rtol=1e-3)
    np.testing.assert_allclose(colourfulness(torch.cat([red, green], -1)), [255 + .3 * 127.5], rtol=1e-5)  # signed
    tiny = torch.cat([red[...,:1,:1], flat(0, 0, 0)[...,:1,:1]], -1)                       # two pixels: population std
    np.testing.assert_allclose(colourfulness(tiny), [math.hypot(127.5, 63.75) * 1.3], rtol=1e-5)

# --- ab histogram and its distance

def test_histogram_counts_every_pixel_at_its_nearest_point():
    lab = skimage.color.rgb2lab(array(REAL[0]))[...,1:]
    place = np.rint((lab + 110) / 10).astype(int)
    want = np.zeros((23, 23))
    np.add.at(want, (place[...,0], place[...,1]), 1)
    h = ab_histogram(REAL[:1])
    assert h.dtype == torch.float64 and h.shape == (23, 23) and h.sum() == 96 * 96
    assert np.abs(h.numpy() - want).sum() < .01 * want.sum()       # scikit-image's Lab differs in the last digits

def test_histogram_knows_which_axis_is_which():
    assert ab_histogram(flat(1, 0, 0))[19,18] == 64                 # sRGB red: a 80, b 67
    assert ab_histogram(flat(0, 0, 1))[19,0] == 64                  # blue: a 79, b -108
    assert ab_histogram(flat(.4, .4, .4))[11,11] == 64
    assert ab_histogram(flat(.4, .4, .4), bins=111)[55,55] == 64

def test_histograms_add_up():
    assert torch.equal(ab_histogram(REAL), ab_histogram(REAL[:2]) + ab_histogram(REAL[2:]))

def distance(rgb, real=REAL): return histogram_distance(ab_histogram(rgb), ab_histogram(real))
def growing(values, step=.05): return all(b > a + step for a,b in zip(values, values[1:]))

@pytest.mark.parametrize('real', [REAL, *REAL.split(1)], ids=['set', 'astronaut', 'coffee', 'chelsea'])
def test_distance_grows_as_colours_fade(real):
    fading = [distance(chroma(real, s), real) for s in (1, .8, .6, .3, 0)]
    assert growing(fading), fading
    assert fading[0] == 0 and fading[-1] == pytest.approx(1)
    assert fading == pytest.approx([0, .2, .4, .7, 1], abs=.1), 'not even'

def test_distance_grows_with_excess_and_with_casts():
    assert growing([distance(chroma(REAL, s)) for s in (1, 1.3, 1.6)])
    assert growing([distance(cast(REAL, s, s / 5, -s)) for s in (0, .05, .1, .2)])         # orange
    assert growing([distance(cast(REAL, -s, s, 0.)) for s in (0, .05, .1, .2)])            # green

def test_distance_does_not_reward_tinting_a_grey_copy():
    grey = chroma(REAL, 0)
    assert distance(cast(grey, -.1, .1, 0.)) > 1.1                 # green: farther than grey
    assert distance(cast(grey, .1, 0., -.1)) > .5                  # sepia: nearer, photos are warm, but still far

def points(*places):
    h = torch.zeros(23, 23, dtype=torch.float64)
    for a,b in places: h[11 + a,11 + b] += 1
    return h

def test_distance_is_the_sliced_wasserstein_distance():
    g = torch.Generator().manual_seed(0)
    h1,h2 = torch.rand(2, 23, 23, generator=g, dtype=torch.float64)**8
    a,b = np.meshgrid(np.arange(-110, 111, 10), np.arange(-110, 111, 10), indexing='ij')
    def sliced(u, v):
        angles = np.arange(16) * np.pi / 16
        lines = [(a * np.cos(t) + b * np.sin(t)).ravel() for t in angles]
        return np.mean([wasserstein_distance(o, o, u.flatten(), v.flatten()) for o in lines])
    assert histogram_distance(h1, h2) == pytest.approx(sliced(h1, h2) / sliced(points((0, 0)), h2))

def test_distance_by_hand():
    real = points((4, 0), (-4, 0))
    assert histogram_distance(real, real * 3) == 0                  # shares, not counts
    assert histogram_distance(points((0, 0)), real) == pytest.approx(1)
    assert histogram_distance(points((2, 0), (-2, 0)), real) == pytest.approx(.5)
    assert histogram_distance(points((8, 0), (-8, 0)), real) == pytest.approx(1)
    assert histogram_distance(points((-4, 0)), points((4, 0))) == pytest.approx(2)         # opposite hues: beyond grey
    assert histogram_distance(points((5, 0)), points((4, 0))) < histogram_distance(points((6, 0)), points((4, 0)))

def test_distance_sees_more_than_the_two_axes():
    assert histogram_distance(points((5, 5), (-5, -5)), points((5, -5), (-5, 5))) > .3

def test_distance_from_grey_photos_is_finite():
    grey = points((0, 0))
    assert histogram_distance(grey, grey) == 0
    assert 0 < histogram_distance(points((1, 0)), grey) <= 10

# --- tally

def test_tally_is_the_metrics_of_the_set():
    got = tally([(GUESS, REAL)])
    assert list(got) == 'psnr colourfulness colourfulness_real colour_ratio ab_distance ab_spread photos'.split()
    assert all(type(v) is float for k,v in got.items() if k != 'photos') and got['photos'] == 3
    ours,theirs = colourfulness(GUESS).mean().item(),colourfulness(REAL).mean().item()
    assert got['psnr'] == pytest.approx(psnr(GUESS, REAL).mean().item())
    assert (got['colourfulness'], got['colourfulness_real']) == pytest.approx((ours, theirs))
    assert got['colour_ratio'] == pytest.approx(ours / theirs)
    assert got['ab_distance'] == distance(GUESS)

def test_streaming_in_unequal_batches_changes_nothing():
    want = tally([(GUESS, REAL)])
    assert tally(zip(GUESS.split(2), REAL.split(2))) == pytest.approx(want, rel=1e-5)
    total = Tally()
    for pred,real in zip(GUESS, REAL): total.add(pred[None], real[None])
    assert total.result() == pytest.approx(want, rel=1e-5)
    assert total.result() == pytest.approx(want, rel=1e-5)          # asking does not change it

def test_tally_takes_photos_of_any_size():
    small = photo('coffee', 32)[None]
    got = tally([(REAL, REAL), (small, small)])
    assert got['photos'] == 4 and got['psnr'] == pytest.approx(100) and got['ab_distance'] == 0

def test_tally_holds_no_graph():
    total = Tally()
    total.add(REAL.clone().requires_grad_(), REAL)
    assert not total.sums.requires_grad and not total.histograms.requires_grad

def test_tally_of_nothing_is_the_users_mistake():
    with pytest.raises(UserError, match='no photos'): tally([])

def test_tally_survives_a_broken_generator_and_grey_photos():
    assert math.isnan(tally([(REAL * math.nan, REAL)])['psnr'])
    grey = chroma(REAL, 0)
    assert math.isfinite(tally([(REAL, grey)])['colour_ratio'])

# --- contact sheet

def centre(sheet, column, row, rows, side): # the last row ends a gap above the bottom
    return sheet.getpixel((column * (side + GAP) + side // 2, sheet.height - (rows - row) * (side + GAP) + side // 2))

def test_contact_sheet_puts_each_photo_in_its_cell(tmp_path):
    colours = [[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(255, 255, 0), (0, 255, 255), (255, 0, 255)]]
    tensors = [torch.cat([flat(*(v / 255 for v in o)) for o in column]) for column in colours]
    images = [Image.new('RGB', (20, 20), o) for o in colours[0]]
    grey = [torch.full((1, 8, 8), .5)] * 3
    path = tmp_path/'deep'/'sheet.png'
    sheet = contact_sheet({'a': tensors[0], 'b': list(tensors[1]), 'c\nd': images, 'e': grey}, path, side=40, title='four columns')
    assert sheet.width == 4 * (40 + GAP) - GAP
    for row in range(3):
        assert centre(sheet, 0, row, 3, 40) == colours[0][row]
        assert centre(sheet, 1, row, 3, 40) == colours[1][row]
        assert centre(sheet, 2, row, 3, 40) == colours[0][row]
        assert centre(sheet, 3, row, 3, 40) == (128, 128, 128)
    assert Image.open(path).convert('RGB').tobytes() == sheet.tobytes()
    assert [o.name for o in path.parent.iterdir()] == ['sheet.png']

def test_contact_sheet_keeps_the_shape_of_photos():
    sheet = contact_sheet({'wide': [torch.zeros(3, 10, 20)]}, side=40)
    top = sheet.height - 40 - GAP
    assert sheet.getpixel((20, top + 4)) == (255, 255, 255) and sheet.getpixel((20, top + 20)) == (0, 0, 0)

def test_contact_sheet_shows_what_a_screen_shows():
    sheet = contact_sheet({'a': [torch.full((3, 8, 8), 2.), torch.full((3, 8, 8), -1.), torch.full((3, 8, 8), math.nan)]})
    assert [centre(sheet, 0, row, 3, 128)[0] for row in range(3)] == [255, 0, 0]

def test_contact_sheet_draws_headers_within_their_columns():
    sheet = contact_sheet({'': REAL[:1], 'pretrained generator': REAL[:1]}, side=64)
    head = np.array(sheet)[:sheet.height - 64 - GAP]
    assert (head[:,:64] == 255).all() and (head[:,64 + GAP:] < 128).any()
    titled = np.array(contact_sheet({'': REAL[:1]}, side=64, title='title'))
    assert (titled[:20] < 128).any()

def test_contact_sheet_refuses_columns_of_unequal_length():
    with pytest.raises(ValueError): contact_sheet({'a': REAL, 'b': REAL[:2]})

# --- curves and report

def xy(ax): return [line.get_xydata().tolist() for line in ax.lines]

def test_curves_skip_what_is_missing_and_go_from_left_to_right():
    rows = [dict(i='10', a='1.5', b=''), dict(i='2', a='1', b='nan'), dict(i='3', a=None), dict(i='', a='9'), dict(i=4, a='inf')]
    ax = curves(rows, 'i', ['a', 'b', 'c'], title='T')
    assert xy(ax) == [[[2, 1], [10, 1.5]]] and ax.get_legend() is None
    assert ax.get_title() == 'T' and ax.get_xlabel() == 'i'

def test_curves_of_several_columns_have_a_legend_and_a_mark_is_no_curve():
    rows = [dict(i=i, a=i, b=-i) for i in range(3)]
    ax = curves(rows, 'i', ['a', 'b'], mark=1.5)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ['a', 'b']
    assert xy(ax)[2][0][0] == 1.5
    assert curves(rows, 'i', ['a'], mark=1).get_legend() is None

def test_curves_draw_on_given_axes_and_on_none():
    ax = curves([], 'i', ['a'])
    assert [t.get_text() for t in ax.texts] == ['no values yet']
    assert curves([dict(i=0, a=1)], 'i', ['a'], ax) is ax and len(ax.lines) == 1

def test_drawing_in_threads_leaves_no_global_figures():
    def draw(i): return as_image(curves([dict(i=0, a=0), dict(i=1, a=i)], 'i', ['a']).figure)
    with ThreadPoolExecutor(2) as pool: pictures = list(pool.map(draw, range(1, 4)))
    assert {o.size for o in pictures} == {(480, 260)} and not Gcf.get_all_fig_managers()

ROWS = [dict(epoch=str(i), loss=str(1 / (i + 1))) for i in range(4)]

@pytest.mark.parametrize('size, panels, want, bottom', [
    ((512, 600), 4, (528 + 960, 600), 600),     # two charts across, as high as the sheet
    ((512, 100), 1, (528 + 480, 260), 260),
    ((512, 1400), 2, (528 + 480, 1400), 800),   # no chart is higher than 400
    ((3000, 1500), 2, (1120 + 480, 552), 552),  # the sheet is shrunk
    ((512, 600), 0, (528 + 480, 600), 0)])
def test_report_has_sheet_and_charts(tmp_path, size, panels, want, bottom):
    sheet = Image.new('RGB', size, (10, 200, 30))
    report(tmp_path/'report.png', sheet, [('Loss', ROWS, 'epoch', ['loss'])] * panels)
    page = Image.open(tmp_path/'report.png').convert('RGB')
    width = min(size[0], 1104)
    assert page.size == want and sheet.size == size
    assert page.getpixel((width // 2, 40)) == (10, 200, 30)
    inked = np.flatnonzero((np.array(page)[:,width:] < 128).any((1, 2)))
    assert bottom - 30 < inked[-1] < bottom if panels else not len(inked)

def test_report_marks_the_pick(tmp_path):
    for name,mark in (('plain', ()), ('marked', (2,))):
        report(tmp_path/f'{name}.png', Image.new('RGB', (8, 8)), [('Loss', ROWS, 'epoch', ['loss'], *mark)])
    assert Image.open(tmp_path/'plain.png').tobytes() != Image.open(tmp_path/'marked.png').tobytes()

@pytest.mark.parametrize('draw', [lambda path: contact_sheet({'a': REAL}, path),
                                  lambda path: report(path, Image.new('RGB', (8, 8)), [])], ids=['sheet', 'report'])
def test_a_picture_that_fails_leaves_the_old_one(tmp_path, monkeypatch, draw):
    path = tmp_path/'picture.png'
    path.write_text('old')
    save = Image.Image.save
    def half(self, file, *args, **kwargs):
        save(self, file, *args, **kwargs)
        if isinstance(file, Path): raise OSError('disk full')       # matplotlib saves to memory
    monkeypatch.setattr(Image.Image, 'save', half)
    with pytest.raises(OSError, match='disk full'): draw(path)
    assert path.read_text() == 'old' and [o.name for o in tmp_path.iterdir()] == ['picture.png']

# --- NoGAN's rule

def log(*values): # (psnr, ab_distance) of checkpoints 0, 1, ...
    return [dict(checkpoint=i, psnr=p, ab_distance=d, colour_ratio=.5) for i,(p,d) in enumerate(values)]

def picked(rows, *args, **kwargs): return (pick(rows, *args, **kwargs) or {}).get('checkpoint')

def test_pick_takes_the_least_distance_within_tolerance():
    rows = log((24, .5), (23.9, .4), (23.75, .3), (23.6, .2), (24.5, .35))
    assert pick(rows, 24) is rows[2]
    assert picked(rows, 24, tolerance=.5) == 3
    assert picked(rows, 24, tolerance=.05) == 4                     # a higher PSNR is no fault
    assert picked(log((24, .5), (23.7, .4)), 24) == 1                # the limit itself is allowed

def test_pick_falls_back_to_the_pretrained_generator():
    rows = log((23, .5), (22, .4), (22, .3))
    assert picked(rows, 24) == 0                                    # though its own PSNR is measured lower here
    assert picked(log((24, .3), (24, .5)), 24) == 0                 # nothing got better
    assert pick([], 24) is None and pick(rows[1:], 24) is None

def test_pick_of_equals_is_the_earliest_whatever_the_order():
    rows = log((24, .5), (24, .3), (24, .4), (24, .3))
    assert picked(rows, 24) == 1 and picked(rows[::-1], 24) == 1    # a resumed log has its rows in another order
    texts = [dict(checkpoint=o, psnr='24', ab_distance='.3') for o in ('10', '9')]
    assert picked(texts, 24) == '9'                                 # as numbers, not as text

def test_pick_passes_over_what_is_broken_or_not_measured():
    rows = log((24, .5), (math.nan, .1), (24, math.nan), (24, ''), ('', .1), (24, .4))
    assert picked(rows + [dict(checkpoint='6')], 24) == 5
    assert picked(log((24, math.nan), (24, .4)), 24) == 1
    assert picked(rows, math.nan) == 0

def test_replaying_the_saved_log_gives_the_same_pick(tmp_path):
    g = np.random.default_rng(0)
    for trial in range(10):
        start = 24 + g.random()
        live = log((start, .5), *((start - .3 + 1e-4 * g.normal(), .3 + 1e-6 * g.normal()) for _ in range(5)))
        path = tmp_path/f'{trial}.csv'
        for row in live: record(path, dict(checkpoint=row['checkpoint']), {k: v for k,v in row.items() if k != 'checkpoint'})
        saved = read_table(path)
        assert int(picked(saved, saved[0]['psnr'])) == picked(live, start)

def test_stale_counts_checkpoints_since_the_pick():
    rows = log((24, .5), (24, .4), (24, .4), (23, .1), (24, .45), (24, .3))
    assert [stale(rows[:n], 24, patience=3) for n in range(1, 7)] == [False, False, False, False, True, False]
    text = [{k: str(v) for k,v in row.items()} for row in rows]
    assert [stale(text[:n], '24', patience=3) for n in range(1, 7)] == [False, False, False, False, True, False]
    assert stale(rows[4::-1], 24, patience=3)                       # order does not matter
    assert not stale(rows[:5], 24, patience=3, tolerance=1)         # then checkpoint 3 is the pick
    assert not stale([], 24, patience=1)

def test_stale_stops_a_training_that_has_broken_but_ignores_rows_without_a_measurement():
    broken = log((24, .5), *[(math.nan, math.nan)] * 3)
    assert stale(broken, 24, patience=3) and not stale(broken, 24, patience=4)
    assert stale(broken[1:], 24, patience=3)                        # not even a first pick
    assert not stale(log((24, .5), ('', ''), ('', '')), 24, patience=1)

# --- everything that tables report

def test_full_tally_is_torchmetrics_and_skimage():
    from torchmetrics.functional.image import peak_signal_noise_ratio as their_psnr   # its SSIM is neither scikit-image's nor the paper's formula
    full, guess = FullTally(), GUESS.clamp(0, 1)
    full.add(GUESS, REAL)
    got = full.result()
    pairs = [(g[None], r[None]) for g,r in zip(guess, REAL)]
    assert got['psnr'] == pytest.approx(np.mean([their_psnr(g, r, data_range=1.).item() for g,r in pairs]), abs=1e-3)
    as_published = dict(channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert got['ssim'] == pytest.approx(np.mean([structural_similarity(array(g), array(r), **as_published) for g,r in zip(guess, REAL)]), abs=1e-4)
    ab = [((skimage.color.rgb2lab(array(g)) - skimage.color.rgb2lab(array(r)))[...,1:]**2).mean() for g,r in zip(guess, REAL)]
    assert got['mse_ab'] == pytest.approx(np.mean(ab), rel=2e-3) and got['mse'] == pytest.approx(((guess - REAL)**2).mean().item(), rel=1e-5)
    assert got['psnr_ab'] == pytest.approx(np.mean([10 * np.log10(255**2 / m) for m in ab]), abs=.01)
    assert got['colour_off'] == pytest.approx(abs(np.mean([hasler(array(g)) - hasler(array(r)) for g,r in zip(guess, REAL)])), rel=1e-3)

class Counted:
    "Stands in for a learned metric."
    def __init__(self): self.seen = []
    def update(self, *photos, real=None): self.seen.append((len(photos[0]), real))
    def compute(self): return torch.tensor(float(len(self.seen)))

def test_learned_metrics_see_every_photo_of_both_kinds():
    made = dict(fid=Counted(), lpips=Counted())
    full = FullTally(made)
    for part in 0, 1: full.add(GUESS[part:part+1], REAL[part:part+1])
    assert made['fid'].seen == [(1, True), (1, False)] * 2 and made['lpips'].seen == [(1, None)] * 2
    assert full.result()['fid'] == 4 and full.result()['lpips'] == 2

class Means(torch.nn.Module):
    "Stands in for Inception: three features, the means of the channels."
    num_features = 3
    def forward(self, x): return x.double().mean((2, 3))

def test_fid_is_the_distance_of_two_normal_distributions():
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import FrechetInceptionDistance
    rng = torch.Generator().manual_seed(0)
    real,made = torch.rand(12, 3, 16, 16, generator=rng) * torch.linspace(.2, 1, 12)[:,None,None,None],torch.rand(12, 3, 16, 16, generator=rng)
    full = FullTally(dict(fid=FrechetInceptionDistance(feature=Means(), normalize=True)))
    for a,b in zip(made.split(5), real.split(5)): full.add(a, b)
    a,b = [x.double().mean((2, 3)).numpy() for x in (made, real)]
    means,spread = ((a.mean(0) - b.mean(0))**2).sum(),np.trace(np.cov(a.T) + np.cov(b.T) - 2 * sqrtm(np.cov(a.T) @ np.cov(b.T)).real)
    assert full.result()['fid'] == pytest.approx(means + spread, rel=1e-3) and full.result()['fid'] > .01
    one = FullTally(dict(fid=FrechetInceptionDistance(feature=Means(), normalize=True)))
    one.add(made[:1], real[:1])
    assert 'fid' not in one.result()                                 # a single photo has no spread

def test_learned_metrics_without_weights_are_left_out_in_a_sentence(monkeypatch):
    def gone(*args, **kwargs): raise OSError('no network')
    monkeypatch.setattr('torchmetrics.image.fid.FrechetInceptionDistance', gone)
    monkeypatch.setattr('torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity', gone)
    with pytest.warns(UserWarning) as said: assert learned_metrics() == {}
    assert [str(w.message) for w in said] == [f'{n} is left out: its weights cannot be had (OSError).' for n in ('FID', 'LPIPS')]

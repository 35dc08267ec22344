"""The README's pictures, made again by the released weights.

    python tests/pictures.py scenes/test
"""
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from deoldify_lite.colorizer import Colorizer
from deoldify_lite.photos import load_photo, sample_photos, scan, square
from deoldify_lite.video import colorize_video

OUT, SIDE, GAP = Path(__file__).parents[1]/'models', 150, 4
BLACK_AND_WHITE = 'forest/12981', 'sea/1707', 'sea/6338', 'unlabelled/11', 'unlabelled/19320', 'unlabelled/11879'   # grey in the data set


def sheet(rows):
    "Rows of equal squares."
    page = Image.new('RGB', (len(rows[0]) * (SIDE + GAP) - GAP, len(rows) * (SIDE + GAP) - GAP), 'white')
    for j, row in enumerate(rows):
        for i, photo in enumerate(row): page.paste(photo.convert('RGB'), (i * (SIDE + GAP), j * (SIDE + GAP)))
    return page


def photos(colorizer, scenes):
    "Photographs that were black and white, and the first eight colour photos by their hash: given, colorized, real."
    old = [square(load_photo(scenes/f'{name}.jpg', SIDE), SIDE).convert('L') for name in BLACK_AND_WHITE]
    sheet([old, [colorizer(p) for p in old]]).save(OUT/'black-and-white.jpg', quality=90)
    real = [square(load_photo(f, SIDE), SIDE) for f in scan(scenes, valid_pct=0).files('train')[:8]]
    grey = [p.convert('L') for p in real]
    sheet([grey, [colorizer(p) for p in grey], real]).save(OUT/'before-after.jpg', quality=90)


def clip(colorizer, w=240, h=160, n=48):
    "A pan over a sample photo: the film, and the film with colours beside it."
    china = Image.open(sample_photos()/'china.jpg').convert('L').resize((400, 267))
    with tempfile.TemporaryDirectory() as folder:
        src, dst = Path(folder)/'in.mp4', Path(folder)/'out.mp4'
        with av.open(str(src), 'w') as out:
            v = out.add_stream('libx264', rate=12)
            v.width, v.height, v.pix_fmt, v.options = w, h, 'yuv420p', {'crf': '10'}
            v.codec_context.time_base = Fraction(1, 12)
            for i in range(n):
                x, y = round(80 + 70 * np.sin(2 * np.pi * i / n)), 20
                frame = av.VideoFrame.from_image(china.crop((x, y, x + w, y + h)))
                frame.pts = i
                out.mux(v.encode(frame))
            out.mux(v.encode(None))
        colorize_video(colorizer, src, dst, progress=False)
        films = [[f.to_image() for f in av.open(str(p)).decode(video=0)] for p in (src, dst)]
    pairs = []
    for before, after in zip(*films):
        pair = Image.new('RGB', (2 * w + GAP, h), 'white')
        pair.paste(before, (0, 0))
        pair.paste(after, (w + GAP, 0))
        pairs.append(pair)
    pairs[0].save(OUT/'clip.webp', save_all=True, append_images=pairs[1:], duration=83, loop=0, quality=60)


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    colorizer = Colorizer.load()
    photos(colorizer, Path(sys.argv[1]))
    clip(colorizer)

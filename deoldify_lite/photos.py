from pathlib import Path
from PIL import Image, ImageOps
def sample_photos():
    d=Path('/tmp/sample_stub'); d.mkdir(exist_ok=True)
    if not any(d.iterdir()):
        from skimage import data
        from sklearn.datasets import load_sample_images
        import numpy as np
        for n in 'astronaut chelsea coffee rocket'.split(): Image.fromarray(getattr(data,n)()).save(d/f'{n}.png')
        for i,o in enumerate(load_sample_images().images): Image.fromarray(o).save(d/f's{i}.png')
        for i in range(2): Image.fromarray(data.astronaut()[::-1,::(-1)**i]).save(d/f'z{i}.png')
    return d
def load_photo(path, side=None):
    im=Image.open(path)
    if side: im.draft('RGB',(side,side))
    return ImageOps.exif_transpose(im).convert('RGB')
def square(im, side): return ImageOps.fit(im,(side,side),Image.BICUBIC)

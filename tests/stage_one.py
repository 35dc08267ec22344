"""A run's generator behind a step of stage 1, as weights in the run folder: `python tests/stage_one.py RUN [gen_064]`; the last when not given."""
import sys

from deoldify_lite.core import Run
from deoldify_lite.export import save_generator
from deoldify_lite.stages import gen_names
from deoldify_lite.training import open_training

with Run(sys.argv[1]).open() as run:
    t = open_training(run, device='cpu')
    sizes = {step: fit.size for step, fit in zip(gen_names(t.recipe), t.recipe.pretrain)}
    step = sys.argv[2] if len(sys.argv) > 2 else list(sizes)[-1]
    save_generator(t.generator(f'{step}.pth').eval(), run/f'{step}.safetensors', t.recipe.generator, t.recipe.generator_args, sizes[step])
    print(run/f'{step}.safetensors')

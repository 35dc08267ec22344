"""What a run's generator was behind stage 1, as a file of weights beside the others of the run: `python tests/stage_one.py RUN`."""
import sys

from deoldify_lite.core import Run
from deoldify_lite.export import save_generator
from deoldify_lite.stages import gen_names
from deoldify_lite.training import open_training

with Run(sys.argv[1]).open() as run:
    t = open_training(run, device='cpu')
    generator = t.generator(f'{gen_names(t.recipe)[-1]}.pth').eval()
    save_generator(generator, run/'stage-1.safetensors', t.recipe.generator, t.recipe.generator_args, t.size)
    print(run/'stage-1.safetensors')

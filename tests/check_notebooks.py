"""Notebooks are the source: fail when modules differ from them, when they are not clean, when one does not run, or when the walkthroughs take too long."""
import filecmp, json, os, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 600  # seconds that the walkthroughs may take


def nbdev(command: str, *args: str, cwd: Path = ROOT) -> str:
    "What a command of nbdev says when it fails, or nothing."
    with tempfile.TemporaryDirectory() as tmp:                           # what notebooks leave behind
        done = subprocess.run([Path(sys.executable).with_name(f'nbdev-{command}'), *args], cwd=cwd, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env=os.environ | dict(TMPDIR=tmp, OMP_NUM_THREADS='1'))
    if done.returncode == 0: return ''
    return done.stdout or f'exit {done.returncode}'


def failing(notebooks: list[Path]) -> tuple[list[str], float]:
    "Which of them do not run to their ends, one after another, and the seconds? Each in a process of its own: in one, memory and settings would pile up."
    names, start = [], time.perf_counter()
    for notebook in notebooks:
        began = time.perf_counter()
        wrong = nbdev('test', str(notebook))
        if wrong: names.append(notebook.name)
        print(f'{wrong}{notebook.relative_to(ROOT)}: {time.perf_counter() - began:.0f} s{", FAILED" if wrong else ""}', flush=True)
    return names, time.perf_counter() - start


def is_bare(notebook: Path) -> bool:
    "Is it saved without anything that its cells answered?"
    return not any(cell.get('outputs') for cell in json.loads(notebook.read_text())['cells'])


def changed(folder: Path, copy: Path, pattern: str) -> list[str]:
    names = {p.relative_to(top) for top in (folder, copy) for p in top.rglob(pattern) if '.ipynb_checkpoints' not in p.parts}
    return [str(n) for n in sorted(names) if not ((folder/n).exists() and (copy/n).exists() and filecmp.cmp(folder/n, copy/n, False))]


def main():
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d)/'repo'
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', 'models', '.git', '__pycache__', '*.egg-info'))
        if wrong := nbdev('export', cwd=copy) or nbdev('clean', cwd=copy): sys.exit(f'{wrong}\nnbdev cannot read the notebooks: see above.')
        stale = changed(ROOT/'deoldify_lite', copy/'deoldify_lite', '*.py')
        dirty = changed(ROOT/'nbs', copy/'nbs', '*.ipynb')
    if stale: sys.exit(f"Modules differ from their notebooks: {', '.join(stale)}. Run nbdev-export (or nbdev-update).")
    if dirty: sys.exit(f"Notebooks are not clean: {', '.join(dirty)}. Run nbdev-clean.")
    notebooks = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    guided = [p for p in notebooks if p.parent.name == 'walkthrough']
    if bare := [p.name for p in guided if is_bare(p)]: sys.exit(f"Walkthroughs are read before they are run, and these have no outputs: {', '.join(bare)}.")
    series = [list(g) for _, g in groupby(notebooks, lambda p: p if p.parent == ROOT/'nbs' else p.parent)]   # those in a folder hand over to each other
    series.sort(key=len, reverse=True)
    with ThreadPoolExecutor(2) as pool: failed, seconds = zip(*pool.map(failing, series))
    if any(failed): sys.exit(f"These notebooks fail: {', '.join(sum(failed, []))}.")
    took = seconds[series.index(guided)]
    print(f'The walkthroughs took {took:.0f} s together.')
    if took > MOST: sys.exit(f'The walkthroughs should take {MOST} s together at most.')


if __name__ == '__main__': main()

"""Notebooks are the source: fail when modules differ from them, when they are not clean, or when one does not run."""
import filecmp, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def nbdev(command: str, *args: str, cwd: Path = ROOT) -> bool:
    with tempfile.TemporaryDirectory() as tmp:                           # what notebooks leave behind
        done = subprocess.run([Path(sys.executable).with_name(f'nbdev-{command}'), *args], cwd=cwd, env=os.environ | dict(TMPDIR=tmp))
    return done.returncode == 0


def runs(notebook: Path) -> bool:
    "Does a notebook run to its end, in a process of its own? In one process for all, memory and settings would pile up."
    began = time.perf_counter()
    ok = nbdev('test', str(notebook))
    print(f'{notebook.relative_to(ROOT)}: {time.perf_counter() - began:.0f} s{"" if ok else ", FAILED"}', flush=True)
    return ok


def changed(folder: Path, copy: Path, pattern: str) -> list[str]:
    names = {p.relative_to(top) for top in (folder, copy) for p in top.rglob(pattern) if '.ipynb_checkpoints' not in p.parts}
    return [str(n) for n in sorted(names) if not ((folder/n).exists() and (copy/n).exists() and filecmp.cmp(folder/n, copy/n, False))]


def main():
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d)/'repo'
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', 'models', '.git', '__pycache__', '*.egg-info'))
        if not (nbdev('export', cwd=copy) and nbdev('clean', cwd=copy)): sys.exit('nbdev cannot read the notebooks: see above.')
        stale = changed(ROOT/'deoldify_lite', copy/'deoldify_lite', '*.py')
        dirty = changed(ROOT/'nbs', copy/'nbs', '*.ipynb')
    if stale: sys.exit(f"Modules differ from their notebooks: {', '.join(stale)}. Run nbdev-export (or nbdev-update).")
    if dirty: sys.exit(f"Notebooks are not clean: {', '.join(dirty)}. Run nbdev-clean.")
    notebooks = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    failed = [nb.name for nb in notebooks if not runs(nb)]
    if failed: sys.exit(f"These notebooks fail: {', '.join(failed)}.")


if __name__ == '__main__': main()

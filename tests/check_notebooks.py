"""Notebooks are the source: fail when modules differ from them, when they are not clean, or when one does not run."""
import filecmp, os, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def nbdev(command: str, *args: str, cwd: Path = ROOT):
    with tempfile.TemporaryDirectory() as tmp:                           # what notebooks leave behind
        subprocess.run([Path(sys.executable).with_name(f'nbdev-{command}'), *args], cwd=cwd, check=True, env=os.environ | dict(TMPDIR=tmp))


def changed(folder: Path, copy: Path, pattern: str) -> list[str]:
    names = {p.relative_to(top) for top in (folder, copy) for p in top.rglob(pattern) if '.ipynb_checkpoints' not in p.parts}
    return [str(n) for n in sorted(names) if not ((folder/n).exists() and (copy/n).exists() and filecmp.cmp(folder/n, copy/n, False))]


def main():
    with tempfile.TemporaryDirectory() as d:
        copy = Path(d)/'repo'
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns('.venv', 'models', '.git', '__pycache__', '*.egg-info'))
        nbdev('export', cwd=copy)
        nbdev('clean', cwd=copy)
        stale = changed(ROOT/'deoldify_lite', copy/'deoldify_lite', '*.py')
        dirty = changed(ROOT/'nbs', copy/'nbs', '*.ipynb')
    if stale: sys.exit(f"Modules differ from their notebooks: {', '.join(stale)}. Run nbdev-export (or nbdev-update).")
    if dirty: sys.exit(f"Notebooks are not clean: {', '.join(dirty)}. Run nbdev-clean.")
    nbdev('test', '--n-workers', '1', '--timing')


if __name__ == '__main__': main()

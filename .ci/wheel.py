"""Checks of the built wheel, one subcommand each; see `run`."""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
LINKED = ("kernels", "search", "specs")


def copy(target: str) -> None:
    """Copy what a build needs to `target`."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("blockforge", *LINKED):
        shutil.copytree(REPO / name, Path(target) / name, ignore=skip, symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPO / name, target)


def unlink(target: str) -> None:
    """Put text where the copy in `target` has links, as a checkout on Windows does, and forget what was built."""
    for name in LINKED:
        link = Path(target) / "blockforge" / name
        text = link.readlink().as_posix()
        link.unlink()
        link.write_text(text, encoding="utf-8")
    shutil.rmtree(Path(target) / "build", ignore_errors=True)


def compare(wheel: str) -> None:
    """Fail unless the wheel holds the tree's files, each at its place and equal, and nothing else."""
    expected = tree()
    with zipfile.ZipFile(wheel) as archive:
        found = {n: archive.read(n) for n in archive.namelist() if ".dist-info/" not in n and not n.endswith("/")}
    problems = [f"not in the wheel: {n}" for n in sorted(expected.keys() - found.keys())]
    problems += [f"only in the wheel: {n}" for n in sorted(found.keys() - expected.keys())]
    problems += [f"differs: {n}" for n, file in expected.items() if n in found and file.read_bytes() != found[n]]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(found)} files in the wheel, equal to the tree's")


def tree() -> dict[str, Path]:
    """Name in the wheel -> file, for everything that should ship."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = ["*.py", *project["tool"]["setuptools"]["package-data"]["*"]]
    homes = {"blockforge": "blockforge", **{f"blockforge/{name}": name for name in LINKED}}
    return {
        f"{place}/{file.relative_to(REPO / folder).as_posix()}": file
        for place, folder in homes.items()
        for file in (REPO / folder).rglob("*")
        if any(fnmatch(file.name, pattern) for pattern in shipped)
    }


def installed(venv: str) -> None:
    """Fail unless `import blockforge` finds the wheel in `venv`, and it added no other top-level name."""
    import blockforge
    import blockforge.kernels
    import blockforge.search
    import blockforge.specs

    for module in (blockforge, blockforge.kernels, blockforge.search, blockforge.specs):
        assert Path(venv).resolve() in Path(str(module.__file__)).resolve().parents, module.__file__
    site = Path(blockforge.__file__).parents[1]
    added = {p.name for p in site.iterdir()} - {"dependencies.pth"}
    assert added == {"blockforge", f"blockforge-{blockforge.__version__}.dist-info"}, added
    print(f"blockforge {blockforge.__version__} from the wheel; nothing else in its site-packages")


if __name__ == "__main__":
    {"copy": copy, "unlink": unlink, "compare": compare, "installed": installed}[sys.argv[1]](sys.argv[2])

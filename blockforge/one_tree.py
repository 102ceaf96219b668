"""Under which name `kernels/`, `search/` and `specs/` may be imported, and beside which code.

They stand at the top of the repository and are linked into the package. So `import kernels` in the root of a clone
finds our folder before anybody's package of that name, and a second clone that is installed may fill what a checkout
lacks. Each of the three packages asks here first.
"""

from __future__ import annotations

import os
import sys

import blockforge


def at_home(name: str, file: str) -> bool:
    """Whether a package runs under its long name; by its short one, the other package of that name takes its place.

    Raises: ImportError if `file` belongs to another tree than `blockforge`, or nobody else has the short name.
    """
    folder = os.path.dirname(file)
    if not name.startswith("blockforge."):
        _hand_over(name, file)
        return False
    if os.path.dirname(folder) not in blockforge.__path__ or not _is_of_one_tree(folder):
        raise ImportError(
            f"two trees are mixed: {name} is in {os.path.dirname(os.path.realpath(folder))}, "
            f"blockforge in {blockforge.__path__[0]}; check that one out whole, or install it with pip"
        )
    return True


def _is_of_one_tree(folder: str) -> bool:
    """Whether a folder really lies in the package or beside it, once links are followed. Installers may link every file
    to a place of their own, so it is folders that count; and where `blockforge` is made of links itself, what these
    lead to."""
    homes = {os.path.realpath(blockforge.__path__[0]), os.path.dirname(os.path.realpath(blockforge.__file__))}
    return os.path.dirname(os.path.realpath(folder)) in {
        above for home in homes for above in (home, os.path.dirname(home))
    }


def _hand_over(name: str, file: str) -> None:
    """Put the next package called `name` on the path, if there is one, in the place of the one in `file`."""
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.dirname(os.path.realpath(file)))
    ours = max((i for i, entry in enumerate(sys.path) if os.path.realpath(entry) == here), default=-1)
    specs = (finder.find_spec(name, sys.path[ours + 1 :]) for finder in sys.meta_path)
    spec = next((s for s in specs if s is not None and s.has_location and s.loader is not None), None)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"no package is named '{name}'; BlockForge's is blockforge.{name}", name=name)
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])

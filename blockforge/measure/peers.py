"""Loads another project's model, so that it can be timed beside ours: one of timm's, or one from a file.

Only a file that the user names is run. Official code often imports packages for training that its forward
pass never uses; those that cannot be imported here are replaced by stand-ins while the file is imported. Where
mamba_ssm is not to be had, its scan is the loop over the sequence that packages fall back to.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.extras import import_timm
from blockforge.kernels.selective_scan.reference import selective_scan


def load_peer(where: str) -> nn.Module:
    """The model that `FILE.py:FACTORY` makes when called without arguments, or timm's: `timm:NAME`.

    Raises: BlockforgeError if the file or the factory is missing, or does not give a module.
    """
    if where.startswith("timm:"):
        return _of_timm(where.removeprefix("timm:"))
    file, _, factory = where.rpartition(":")
    path = Path(file)
    if not factory or not path.is_file():
        raise BlockforgeError(f"'{where}' is neither FILE.py:FACTORY nor timm:NAME; for example models/smt.py:smt_t")
    module = _import(path)
    make = getattr(module, factory, None)
    if not callable(make):
        raise BlockforgeError(f"{path} has no '{factory}' to call")
    try:
        model = make()
    except Exception as e:
        hint = "name a file of your own whose function makes the model"
        raise BlockforgeError(f"{where}() fails: {type(e).__name__}: {e}\n  hint: {hint}") from e
    if not isinstance(model, nn.Module):
        raise BlockforgeError(f"{where} gives a {type(model).__name__}, not a torch module")
    return model


def _of_timm(name: str) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(name):
        raise BlockforgeError(f"timm has no model '{name}'\n  hint: {did_you_mean(name, timm.list_models(), 'models')}")
    return timm.create_model(name)


def _import(path: Path) -> types.ModuleType:
    """The module of a file; what it imports relatively is found beside it."""
    package = types.ModuleType(f"blockforge_peer_{abs(hash(path.parent.resolve()))}")
    package.__path__ = [str(path.parent)]
    for name in [n for n in sys.modules if n.startswith(package.__name__)]:
        del sys.modules[name]  # the file may have changed
    sys.modules[package.__name__] = package
    names = {name for file in path.parent.glob("*.py") for name in _imports(file)}
    with _stand_ins(names):
        try:
            return importlib.import_module(f"{package.__name__}.{path.stem}")
        except Exception as e:
            raise BlockforgeError(f"{path} cannot be imported: {type(e).__name__}: {e}") from e


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, and the packages they are in; none of a file that is not Python."""
    modules: set[str] = set()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return modules
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for name in names:
            parts = name.split(".")
            modules |= {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    return modules


@contextmanager
def _stand_ins(names: set[str]) -> Iterator[None]:
    finder = _Finder(names, {top for top in sorted({n.partition(".")[0] for n in names}) if not _works(top)})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [n for n, module in sys.modules.items() if isinstance(module, _StandIn)]:
            del sys.modules[name]


def _works(package: str) -> bool:
    """Whether a package can be imported; what a failing one leaves behind is removed."""
    before = set(sys.modules)
    try:
        importlib.import_module(package)
    except Exception:  # another project's package may fail in any way: then it is not to be had here
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == package:
                del sys.modules[name]
        return False
    return True


class _Finder:
    """Gives stand-ins for the modules of packages that do not work."""

    def __init__(self, names: set[str], broken: set[str]) -> None:
        self.names, self.broken = names, broken

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if name not in self.names or name.partition(".")[0] not in self.broken:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _StandIn(types.ModuleType):
    """A module whose every name is a harmless function, a decorator that changes nothing among them."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _KNOWN.get(name, _nothing)


def _nothing(*args: Any, **kwargs: Any) -> Any:
    return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else None


def _pair(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value, value)


class _NoDrop(nn.Identity):
    """Stochastic depth in evaluation."""


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    *_: Any,
    **__: Any,
) -> Tensor:
    """mamba_ssm's `selective_scan_fn`, step after step."""
    B, C = (t.unsqueeze(1) if t.ndim == 3 else t for t in (B, C))
    y = selective_scan(u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus)
    return y if z is None else y * nn.functional.silu(z)


_KNOWN: dict[str, Any] = {
    "DropPath": _NoDrop,
    "to_2tuple": _pair,
    "trunc_normal_": nn.init.trunc_normal_,
    "selective_scan_fn": _scan,
}

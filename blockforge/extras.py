"""Libraries that only some commands need, installed as extras: `pip install 'blockforge[train]'`."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType

from blockforge.errors import BlockforgeError, in_a_line


class MissingExtraError(BlockforgeError, ImportError):
    """A command needs a library that is not installed."""


def need(extra: str, *modules: str) -> None:
    """Check that the modules of an extra are there, before any work starts.

    Args:
        extra: a name of `[project.optional-dependencies]`.
        modules: what is about to be imported from it.
    Raises: MissingExtraError, which says what to install.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"this needs {', '.join(missing)}\n  hint: pip install 'blockforge[{extra}]'")


def import_timm() -> ModuleType:
    """timm; it imports torchvision, whose wheels fit one version and one build of torch each.

    Raises: MissingExtraError, which says what to install.
    """
    need("timm", "timm")
    try:
        return importlib.import_module("timm")
    except Exception as e:  # builds that do not fit fail in many ways: no operator, no symbol, no attribute
        for name in [n for n in sys.modules if n.partition(".")[0] in ("timm", "torchvision")]:
            del sys.modules[name]  # half imported, they would fail in another way the next time
        versions = f"torchvision {_version('torchvision')} beside torch {_version('torch')}"
        hint = "pip install a torchvision of the same release and build as torch, both from one index"
        raise MissingExtraError(f"timm cannot be imported with {versions} ({in_a_line(e)}); {hint}") from None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"

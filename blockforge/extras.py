"""Libraries that only some commands need, installed as extras: `pip install 'blockforge[train]'`."""

from __future__ import annotations

from importlib.util import find_spec

from blockforge.errors import BlockforgeError


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

"""Of which backend costs are: a name, never what a machine happens to have.

What an operator holds in memory depends on what runs it. The functions `workspace` of the operators answer for the
backend that `costs_of` names, whatever is installed, asked for in the environment, or in the machine:

    with costs_of("torch"):
        held = selective_scan.workspace(196, 96, 8)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from blockforge.errors import BlockforgeError, did_you_mean

__all__ = ["COSTED", "DEFAULT", "CostError", "check_backend", "costed", "costs_of", "rehearsal", "rehearsing"]

COSTED = {
    "numba": "kernels that keep no states: what runs on a CPU with blockforge[jit]",
    "torch": "standard operators: what runs without numba, and in exported graphs",
}
"""Backends that costs can be of, and what they stand for. An operator without the one that is named, and all that is
no operator of ours, runs as torch does it on a CPU."""
DEFAULT = "numba"

_named: ContextVar[str] = ContextVar("blockforge_costs_backend", default=DEFAULT)
_rehearsing: ContextVar[bool] = ContextVar("blockforge_costs_rehearsal", default=False)


class CostError(BlockforgeError, ValueError):
    """A cost that is not known, or asked for in a way that is not."""


def costed() -> str:
    """The backend that costs are of here."""
    return _named.get()


@contextmanager
def costs_of(backend: str) -> Iterator[None]:
    """Costs inside are of this backend. Raises: CostError if there are no costs of it."""
    token = _named.set(check_backend(backend))
    try:
        yield
    finally:
        _named.reset(token)


@contextmanager
def rehearsal(backend: str) -> Iterator[None]:
    """Inside, operators on the meta device make and keep the tensors that they would on this backend, so that their
    memory can be counted without any. Raises: CostError if there are no costs of it."""
    token = _rehearsing.set(True)
    try:
        with costs_of(backend):
            yield
    finally:
        _rehearsing.reset(token)


def rehearsing() -> bool:
    """Whether a `rehearsal` goes on."""
    return _rehearsing.get()


def check_backend(name: str) -> str:
    """The name itself. Raises: CostError if there are no costs of such a backend."""
    if not isinstance(name, str) or name not in COSTED:
        raise CostError(f"costs are not known of the backend '{name}'\n  hint: {did_you_mean(str(name), COSTED)}")
    return name

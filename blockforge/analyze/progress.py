"""How far an analysis is: a bar on a terminal, a line every few seconds elsewhere. On standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blockforge.console.progress import counting


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after each of `total` batches."""
    with counting(what, total, True) as advance:
        yield lambda: advance(1)

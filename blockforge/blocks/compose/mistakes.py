"""What is wrong with one composite, gathered while it is written out: all of it is told together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from blockforge.errors import OpError, Path

MAX_MISTAKES = 20
"""Of one composite: enough to mend at once."""


class Mistakes:
    """Those found so far. What a mistaken op would give is a value that nobody knows; ops that read it are read on for
    what is wrong with them on any map.

    Attributes:
        unknown: the numbers of such values.
    """

    def __init__(self) -> None:
        self.found: list[OpError] = []
        self.unknown: set[int] = set()
        self._calls: list[tuple[Callable[[], str], Path]] = []

    @contextmanager
    def inside(self, call: Callable[[], str], at: Path) -> Iterator[None]:
        """Inside, mistakes are in a definition that is called at a place. `call` says it in words."""
        self._calls.append((call, at))
        try:
            yield
        finally:
            self._calls.pop()

    def note(self, error: OpError, *, follows: bool) -> None:
        """Keep a mistake and those that came with it. `follows`: others may be the cause, so that only what is wrong on
        any map counts. Raises: OpError where that is enough."""
        for e in (error, *error.also):
            if not follows or e.is_of_text:
                e.also, e.calls = [], [(call(), at) for call, at in reversed(self._calls)]
                self.found.append(e)
        if len(self.found) >= MAX_MISTAKES:
            self.close()

    def close(self) -> None:
        """Raise the first mistake, with the others beside it, if there is one."""
        if self.found:
            first, *first.also = self.found
            raise first

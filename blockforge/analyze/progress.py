"""How far an analysis is: a bar on a terminal, a line every few seconds elsewhere. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from blockforge.progress import bar, line

SECONDS = 5.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after each of `total` batches."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, what, total).advance
        return
    with bar(what, console, transient=True) as shown:
        task = shown.add_task(what, total=total, text="")
        yield lambda: shown.advance(task)


class _Lines:
    def __init__(self, console: Console, what: str, total: int) -> None:
        self.console, self.what, self.total = console, what, total
        self.done, self.shown = 0, time.monotonic()

    def advance(self) -> None:
        self.done += 1
        if time.monotonic() - self.shown >= SECONDS:
            self.shown = time.monotonic()
            line(self.console, f"{self.what}: {self.done}/{self.total} batches")

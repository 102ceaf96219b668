"""How far an analysis is: a bar on a terminal, a line every few seconds elsewhere. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS = 5.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives what is to be called after each of `total` batches."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, what, total).advance
        return
    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, expand=True, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


class _Lines:
    def __init__(self, console: Console, what: str, total: int) -> None:
        self.console, self.what, self.total = console, what, total
        self.done, self.shown = 0, time.monotonic()

    def advance(self) -> None:
        self.done += 1
        if time.monotonic() - self.shown >= SECONDS:
            self.shown = time.monotonic()
            self.console.print(f"{self.what}: {self.done}/{self.total} batches", highlight=False)

"""How far a long command is: a live bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Where a command shows how far it is. This one shows nothing."""

    def start(self, total: int, done: int, line: Callable[[], str], resumed: bool = False) -> None:
        """The work begins with `done` of `total`.

        Args:
            line: what a log says of it; asked when it is written.
            resumed: whether it goes on where it once stopped, which a log tells at once.
        """

    def update(self, done: int, text: str, line: Callable[[], str]) -> None:
        """So much is done. A bar bears the text beside its counts."""

    def note(self, line: str) -> None:
        """Something that is always told."""

    def stop(self) -> None:
        """The work ended, however it did."""


class Bar(Display):
    """A live bar.

    Args:
        transient: whether it vanishes at its end.
    """

    def __init__(self, what: str, console: Console, transient: bool = False) -> None:
        columns = (
            TextColumn(what),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self.what, self.progress = what, Progress(*columns, console=console, expand=True, transient=transient)

    def start(self, total: int, done: int, line: Callable[[], str], resumed: bool = False) -> None:
        self.task = self.progress.add_task(self.what, total=total, completed=done, text="")
        self.progress.start()

    def update(self, done: int, text: str, line: Callable[[], str]) -> None:
        self.progress.update(self.task, completed=done, text=text)

    def note(self, line: str) -> None:
        self.progress.console.print(line, highlight=False)

    def stop(self) -> None:
        self.progress.stop()


class Lines(Display):
    """A plain line every `seconds`, for logs and pipes.

    Args:
        to_the_end: whether the end is told too.
    """

    def __init__(self, console: Console, seconds: float, to_the_end: bool = False) -> None:
        self.console, self.seconds, self.to_the_end = console, seconds, to_the_end

    def start(self, total: int, done: int, line: Callable[[], str], resumed: bool = False) -> None:
        self._shown, self._untold = time.monotonic(), line if self.to_the_end else None
        if resumed:
            self.note(line())

    def update(self, done: int, text: str, line: Callable[[], str]) -> None:
        if time.monotonic() - self._shown >= self.seconds:
            self.note(line())
        elif self.to_the_end:
            self._untold = line

    def note(self, line: str) -> None:
        self._shown, self._untold = time.monotonic(), None
        self.console.print(line, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        if self._untold is not None:
            self.note(self._untold())


def display(
    what: str,
    show: bool,
    console: Console | None = None,
    *,
    seconds: float = 10.0,
    to_the_end: bool = False,
    transient: bool = False,
) -> Display:
    """What fits the terminal: a bar, or lines where there is none; see there."""
    if not show:
        return Display()
    console = console or Console(stderr=True)
    return Bar(what, console, transient) if console.is_terminal else Lines(console, seconds, to_the_end)


class Advance(Protocol):
    """Counts what was done."""

    def __call__(self, more: int = 1) -> None: ...


@contextmanager
def counting(what: str, total: int, show: bool = True) -> Iterator[Advance]:
    """Counts to `total`: gives what is to be called when a thing, or several, were done."""
    shown, done = display(what, show, transient=True), 0

    def line() -> str:
        return f"{what}: {done} of {total}"

    def advance(more: int = 1) -> None:
        nonlocal done
        done += more
        shown.update(done, "", line)

    shown.start(total, 0, line)
    try:
        yield advance
    finally:
        shown.stop()

"""How far a long command is: a live bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Shown = TypeVar("Shown")


def bar(what: str, console: Console, *, transient: bool = False) -> Progress:
    """A bar whose tasks bear a `text` beside their counts.

    Args:
        transient: whether it vanishes at its end.
    """
    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    return Progress(*columns, console=console, expand=True, transient=transient)


def line(console: Console, text: str) -> None:
    """A plain line, as a log wants it."""
    console.print(text, highlight=False, soft_wrap=True)


def fitting(
    show: bool | Shown,
    silent: Callable[[], Shown],
    bar: Callable[[Console], Shown],
    lines: Callable[[Console], Shown],
    console: Console | None = None,
) -> Shown:
    """What shows a command's progress: what fits the terminal, nothing, or what was given in place of a yes or no."""
    if not isinstance(show, bool):
        return show
    if not show:
        return silent()
    console = console or Console(stderr=True)
    return bar(console) if console.is_terminal else lines(console)


@contextmanager
def counting(what: str, total: int, show: bool, seconds: float = 10.0) -> Iterator[Callable[[int], None]]:
    """Counts to `total`: gives what is to be called with each number of things that were done."""
    console = Console(stderr=True)
    done, shown = 0, time.monotonic()
    live = bar(what, console, transient=True) if show and console.is_terminal else None
    task = live.add_task(what, total=total, text="") if live is not None else None

    def advance(more: int) -> None:
        nonlocal done, shown
        done += more
        if live is not None and task is not None:
            live.update(task, completed=done)
        elif show and time.monotonic() - shown >= seconds:
            shown = time.monotonic()
            line(console, f"{what}: {done} of {total}")

    if live is not None:
        live.start()
    try:
        yield advance
    finally:
        if live is not None:
            live.stop()

"""How far a long command is: a live bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

from collections.abc import Callable
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

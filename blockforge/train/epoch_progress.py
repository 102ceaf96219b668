"""What a person sees while a network is trained: a live bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

from typing import Protocol

from rich.console import Console

from blockforge.console.progress import Display, display
from blockforge.train.result import EpochRecord


class Reporter(Protocol):
    """Follows a run. What it raises ends the run and reaches the caller."""

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None:
        """The run begins, or goes on after `done` of its `steps`."""

    def step(self, done: int, loss: float, lr: float) -> None:
        """Some steps were made; `loss` is that of the last one."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch ended and was evaluated."""

    def stop(self) -> None:
        """The run ended, however it did."""


class EnoughError(Exception):
    """Raised by a reporter when an epoch ends: the run is saved there, to go on later, and ends."""


class EpochProgress:
    """Shows the steps of a run, and a line for each epoch."""

    def __init__(self, shown: Display | None = None) -> None:
        self.shown = shown or Display()

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None:
        self.steps = steps
        line = f"goes on after step {done} of {steps} ({len(history)} epochs done)"
        self.shown.start(steps, done, lambda: line, resumed=done > 0)

    def step(self, done: int, loss: float, lr: float) -> None:
        figures = f"loss {loss:.3f}, lr {lr:.2g}"
        self.shown.update(done, figures, lambda: f"step {done}/{self.steps}: {figures}")

    def epoch(self, record: EpochRecord) -> None:
        self.shown.note(epoch_line(record))

    def stop(self) -> None:
        self.shown.stop()


def epoch_line(record: EpochRecord) -> str:
    """`epoch 3: loss 0.712, val loss 0.402, top-1 88.10, top-5 99.10 (1250 images/s)`."""
    figures = f"loss {record.train_loss:.3f}, val loss {record.val_loss:.3f}"
    speed = f"{record.images_per_second:.0f} images/s"
    return f"epoch {record.epoch}: {figures}, top-1 {record.top1:.2f}, top-5 {record.top5:.2f} ({speed})"


def reporter(show: bool | Reporter, console: Console | None = None) -> Reporter:
    """The reporter that fits the terminal, or the one given."""
    return EpochProgress(display("train", show, console, seconds=60.0)) if isinstance(show, bool) else show

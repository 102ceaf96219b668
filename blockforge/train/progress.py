"""What a person sees while a network is trained: a live bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console

from blockforge.console import progress
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


class Silent:
    """Shows nothing."""

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None: ...

    def step(self, done: int, loss: float, lr: float) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def stop(self) -> None: ...


class Bar:
    """A live bar over all steps, and a line above it for each epoch."""

    def __init__(self, console: Console) -> None:
        self.progress = progress.bar("train", console)

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None:
        self.task = self.progress.add_task("train", total=steps, completed=done, text="")
        self.progress.start()

    def step(self, done: int, loss: float, lr: float) -> None:
        self.progress.update(self.task, completed=done, text=f"loss {loss:.3f}, lr {lr:.2g}")

    def epoch(self, record: EpochRecord) -> None:
        self.progress.console.print(epoch_line(record), highlight=False)

    def stop(self) -> None:
        self.progress.stop()


class Lines:
    """A plain line an epoch, and every `seconds` in between, for logs and pipes."""

    def __init__(self, console: Console, seconds: float = 60.0) -> None:
        self.console, self.seconds, self.steps = console, seconds, 0

    def start(self, steps: int, done: int, history: list[EpochRecord]) -> None:
        self.steps, self.shown = steps, time.monotonic()
        if done:
            self._print(f"goes on after step {done} of {steps} ({len(history)} epochs done)")

    def step(self, done: int, loss: float, lr: float) -> None:
        if time.monotonic() - self.shown >= self.seconds:
            self._print(f"step {done}/{self.steps}: loss {loss:.3f}, lr {lr:.2g}")

    def epoch(self, record: EpochRecord) -> None:
        self._print(epoch_line(record))

    def stop(self) -> None: ...

    def _print(self, text: str) -> None:
        self.shown = time.monotonic()
        progress.line(self.console, text)


def epoch_line(record: EpochRecord) -> str:
    """`epoch 3: loss 0.712, val loss 0.402, top-1 88.10, top-5 99.10 (1250 images/s)`."""
    figures = f"loss {record.train_loss:.3f}, val loss {record.val_loss:.3f}"
    speed = f"{record.images_per_second:.0f} images/s"
    return f"epoch {record.epoch}: {figures}, top-1 {record.top1:.2f}, top-5 {record.top5:.2f} ({speed})"


def make_reporter(show: bool | Reporter, console: Console | None = None) -> Reporter:
    """The reporter that fits the terminal, or the one given."""
    return progress.fitting(show, Silent, Bar, Lines, console)

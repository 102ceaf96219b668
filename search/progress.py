"""What a person sees while a search runs: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console

from blockforge.console import progress
from blockforge.search.study.records import EVALUATED, LABELS, TrialRecord, Verdict


class Reporter(Protocol):
    """Follows a search."""

    def start(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None:
        """The search begins.

        Args:
            earlier: the trials that a resumed study brings.
            signs: for each value, 1 if larger is better, else -1.
        """

    def update(self, record: TrialRecord) -> None:
        """A trial ended."""

    def stop(self) -> None:
        """The search ended."""


class Silent:
    """Shows nothing."""

    def start(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None: ...

    def update(self, record: TrialRecord) -> None: ...

    def stop(self) -> None: ...


class Tally:
    """Counts of a search, its best value and its speed."""

    def __init__(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None:
        self.target, self.signs, self.counts, self.evaluated = target, signs, Counter[Verdict](), 0
        self.best: tuple[int, float] | None = None
        for record in earlier:
            self.add(record)
        self.before, self.started = self.evaluated, time.monotonic()

    def add(self, record: TrialRecord) -> None:
        self.counts[record.state] += 1
        self.evaluated += record.state in EVALUATED and record.rung == 0
        if record.score is not None:
            better = record.rung, record.score * self.signs[0]
            self.best = better if self.best is None else max(self.best, better)

    @property
    def rate(self) -> float:
        """Evaluated candidates a second, in this run."""
        return (self.evaluated - self.before) / max(1e-9, time.monotonic() - self.started)

    def text(self) -> str:
        scored = self.counts["scored"]
        best = (
            f"best {self.best[1] * self.signs[0]:.4g}"
            if self.best
            else f"{scored} scored"
            if scored
            else "no score yet"
        )
        others = [f"{self.counts[s]} {label}" for s, label in LABELS.items() if self.counts[s] and s != "interrupted"]
        return ", ".join([best, *others, f"{self.rate:.2f}/s"])

    def remaining(self) -> str:
        if not self.rate:
            return "?"
        minutes, seconds = divmod(round((self.target - self.evaluated) / self.rate), 60)
        return f"{minutes}:{seconds:02d}"


class Bar:
    """A live bar. It redraws itself while a candidate is being evaluated."""

    def __init__(self, console: Console) -> None:
        self.progress = progress.bar("search", console)

    def start(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None:
        self.tally = Tally(target, earlier, signs)
        self.task = self.progress.add_task("search", total=target, completed=self.tally.evaluated, text="")
        self.progress.start()

    def update(self, record: TrialRecord) -> None:
        self.tally.add(record)
        self.progress.update(self.task, completed=self.tally.evaluated, text=self.tally.text())

    def stop(self) -> None:
        self.progress.stop()


class Lines:
    """A plain line every `seconds`, for logs and pipes."""

    def __init__(self, console: Console, seconds: float = 5.0) -> None:
        self.console, self.seconds = console, seconds

    def start(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None:
        self.tally, self.shown, self.news = Tally(target, earlier, signs), time.monotonic(), True
        if earlier:
            self.line()

    def update(self, record: TrialRecord) -> None:
        self.tally.add(record)
        self.news = True
        if time.monotonic() - self.shown >= self.seconds:
            self.line()

    def line(self) -> None:
        self.shown, self.news = time.monotonic(), False
        tally = self.tally
        text = f"{tally.evaluated}/{tally.target} evaluated, {tally.text()}, {tally.remaining()} left"
        progress.line(self.console, text)

    def stop(self) -> None:
        if self.news:
            self.line()


def make_reporter(show: bool | Reporter, console: Console | None = None) -> Reporter:
    """The reporter that fits the terminal, or the one given."""
    return progress.fitting(show, Silent, Bar, Lines, console)

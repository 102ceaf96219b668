"""What a person sees while a search runs: a live bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console

from blockforge.console.progress import Display, display
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

    def line(self) -> str:
        return f"{self.evaluated}/{self.target} evaluated, {self.text()}, {self.remaining()} left"


class TrialProgress:
    """Shows how many candidates were evaluated. A bar redraws itself while one is.

    Args:
        what: whose they are, where a log has those of several.
    """

    def __init__(self, shown: Display, what: str = "") -> None:
        self.shown, self.what = shown, what

    def start(self, target: int, earlier: list[TrialRecord], signs: Sequence[float] = (1.0,)) -> None:
        self.tally = Tally(target, earlier, signs)
        self.shown.start(target, self.tally.evaluated, self.line, resumed=bool(earlier))

    def update(self, record: TrialRecord) -> None:
        self.tally.add(record)
        self.shown.update(self.tally.evaluated, self.tally.text(), self.line)

    def line(self) -> str:
        return f"{self.what}: {self.tally.line()}" if self.what else self.tally.line()

    def stop(self) -> None:
        self.shown.stop()


def reporter(show: bool | Reporter, console: Console | None = None) -> Reporter:
    """The reporter that fits the terminal, or the one given."""
    if not isinstance(show, bool):
        return show
    return TrialProgress(display("search", show, console, seconds=5.0, to_the_end=True))


def control_reporter(show: bool) -> Reporter:
    """The same of the random candidates that a search is compared with."""
    return TrialProgress(display("control", show, seconds=5.0, to_the_end=True), "control")

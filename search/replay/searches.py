"""Searches replayed: how good a network each way to search has found after so many trainings.

Shapes: S searches, T trainings of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blockforge.console.text_table import Label, Number, TextTable
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.samplers.registry import make_sampler

SAMPLERS = ("random", "tpe")
COUNTS = (10, 15, 20, 30, 40, 60)
"""Trainings after which the best is told."""
SCREENED, PLAIN = 20, 60
"""Trainings of a screened search, and those of one that is not which it is to keep up with."""
_RESAMPLES = 2000
Best = npt.NDArray[np.float64]
"""The best value so far, S x T."""


class Lead(NamedTuple):
    """By how much one way is ahead of another, in points, with the 95% bootstrap interval over searches."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:+.2f} ({self.low:+.2f} {self.high:+.2f})"


@dataclass(frozen=True)
class Searches:
    """Replayed searches.

    Attributes:
        table: on which.
        best: by sampler, and whether it was screened: the best value so far, S x T.
        top: the best value of the table.
        pool: proposals of which a screen chooses.
    """

    table: Benchmark
    best: dict[tuple[str, bool], Best]
    top: float
    pool: int

    def lead(self, sampler: str, screened: int, plain: int) -> Lead:
        """Of the screened search after so many trainings over the plain one after so many; seeds are paired."""
        ahead_S = self.best[sampler, True][:, screened - 1] - self.best[sampler, False][:, plain - 1]
        drawn = np.random.default_rng(0).integers(len(ahead_S), size=(_RESAMPLES, len(ahead_S)))
        low, high = np.quantile(ahead_S[drawn].mean(1), [0.025, 0.975])
        return Lead(float(ahead_S.mean()), float(low), float(high))

    def needed(self, sampler: str, screened: int) -> int | None:
        """Trainings after which the plain search has, on average, found what the screened one has; None: never."""
        wanted = self.best[sampler, True][:, screened - 1].mean()
        reached = np.flatnonzero(self.best[sampler, False].mean(0) >= wanted)
        return int(reached[0]) + 1 if len(reached) else None


def replay_searches(
    table: Benchmark, searches: int, pool: int, told: Callable[[str], object] = lambda line: None
) -> Searches:
    """Each sampler, as it is and screened, with as many seeds; what a search sees is one training a network."""
    most = min(PLAIN, len(table))
    best: dict[tuple[str, bool], Best] = {}
    for sampler in SAMPLERS:
        for screen, trials in ((None, most), (pool, min(SCREENED, most))):
            rows = []
            for seed in range(searches):
                taken = table.replay(make_sampler(sampler, seed), trials, seed=0, screen=screen)
                rows.append(np.maximum.accumulate([table.value(n, seed=0) for n in taken]))
                told(f"{sampler}{', screened' if screen else ''}: {seed + 1} of {searches}")
            best[sampler, screen is not None] = np.asarray(rows)
    return Searches(table, best, max(table.value(n, seed=0) for n in table.networks), pool)


def text_table(found: Searches) -> TextTable:
    """How far the best lies below the table's, to be printed by rich."""
    counts = [n for n in COUNTS if n <= max(best.shape[1] for best in found.best.values())]
    number = next(iter(found.best.values())).shape[0]
    title = f"Points below the best of the table, the mean of {number} searches, after so many trainings"
    shown = TextTable(Label("search"), *(Number(str(n)) for n in counts), title=title)
    for (sampler, screened), best in found.best.items():
        below = [f"{found.top - best[:, n - 1].mean():.2f}" if n <= best.shape[1] else "" for n in counts]
        shown.add_row(f"{sampler}, screened of {found.pool}" if screened else sampler, *below)
    return shown


def summary(found: Searches) -> Iterator[str]:
    """What the screen was worth, a line a sampler."""
    for sampler in SAMPLERS:
        few, many = found.best[sampler, True].shape[1], found.best[sampler, False].shape[1]
        needed = found.needed(sampler, few)
        yield (
            f"{sampler}: {few} trainings screened lead {few} plain ones by {found.lead(sampler, few, few)} points and "
            f"{many} by {found.lead(sampler, few, many)}; plain, it takes {needed or f'more than {many}'} to get there."
        )

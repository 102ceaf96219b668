"""Searches replayed: how good a network each way to search has found after so many trainings.

Shapes: S searches, T trainings of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blockforge.console.text_table import Label, Number, TextTable
from blockforge.errors import SearchError
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.objectives.ranking import Estimate, estimate, resampled
from blockforge.search.samplers.registry import make_sampler
from blockforge.search.screen.screen import FEWEST

SAMPLERS = ("random", "tpe")
COUNTS = (10, 15, 20, 30, 40, 60)
"""Trainings after which the best is told."""
SCREENED, PLAIN = 20, 60
"""Trainings of a screened search, and those of one that is not which it is to keep up with."""
Values = npt.NDArray[np.float64]
"""A figure of each training of each search, in its order, S x T."""


@dataclass(frozen=True)
class Searches:
    """Replayed searches.

    Attributes:
        table: on which.
        values: by sampler, and whether it was screened: what each training reached, S x T.
        means: of the same networks, the mean of all trainings that the table has of each: what they are worth.
        top: the best value of the table.
        pool: proposals of which a screen chooses.
    """

    table: Benchmark
    values: dict[tuple[str, bool], Values]
    means: dict[tuple[str, bool], Values]
    top: float
    pool: int

    def best(self, sampler: str, screened: bool) -> Values:
        """The best so far."""
        return np.maximum.accumulate(self.values[sampler, screened], axis=1)

    def lead(self, sampler: str, screened: int, plain: int) -> Estimate:
        """Of the best of the screened search after so many trainings over the plain one's after so many."""
        return _lead(self.best(sampler, True)[:, screened - 1] - self.best(sampler, False)[:, plain - 1])

    def worth(self, sampler: str, screened: int, plain: int) -> Estimate:
        """The same of what the networks that looked best are worth: one training flatters whoever has tried more."""
        found = []
        for of, trainings in ((True, screened), (False, plain)):
            best = self.values[sampler, of][:, :trainings].argmax(1)
            found.append(self.means[sampler, of][np.arange(len(best)), best])
        return _lead(found[0] - found[1])

    def picked(self, sampler: str, trainings: int) -> Estimate:
        """Of the mean of what the screened search trained once it was screened, up to so many, over the plain one's."""
        screened, plain = (self.values[sampler, s][:, FEWEST:trainings].mean(1) for s in (True, False))
        return _lead(screened - plain)

    def needed(self, sampler: str, screened: int) -> int | None:
        """Trainings after which the plain search has, on average, found what the screened one has; None: never."""
        wanted = self.best(sampler, True)[:, screened - 1].mean()
        reached = np.flatnonzero(self.best(sampler, False).mean(0) >= wanted)
        return int(reached[0]) + 1 if len(reached) else None


def _lead(ahead_S: Values) -> Estimate:
    """By how many points, of searches in pairs of equal seed, with the interval over searches."""
    return estimate(np.append(ahead_S.mean(), ahead_S[resampled(len(ahead_S))].mean(1)))


def _points(lead: Estimate) -> str:
    return f"{lead.value:+.2f} ({lead.low:+.2f} {lead.high:+.2f})"


def replay_searches(
    table: Benchmark, searches: int, pool: int, told: Callable[[str], object] = lambda line: None
) -> Searches:
    """Each sampler, as it is and screened, with as many seeds; what a search sees is one training a network.

    Raises: SearchError where the table is so small that nothing would be screened.
    """
    if len(table) <= FEWEST:
        raise SearchError(f"'{table.name}' holds {len(table)} networks: nothing is screened before {FEWEST} are trained"
                          "\n  hint: blockforge bench fidelity trains more")  # fmt: skip
    most = min(PLAIN, len(table))
    values: dict[tuple[str, bool], Values] = {}
    means: dict[tuple[str, bool], Values] = {}
    for sampler in SAMPLERS:
        for screen, trials in ((None, most), (pool, min(SCREENED, most))):
            rows, worth = [], []
            for seed in range(searches):
                taken = table.replay(make_sampler(sampler, seed), trials, seed=0, screen=screen)
                rows.append([table.value(n, seed=0) for n in taken])
                worth.append([table.value(n) for n in taken])
                told(f"{sampler}{', screened' if screen else ''}: {seed + 1} of {searches}")
            kind = (sampler, screen is not None)
            values[kind], means[kind] = np.asarray(rows), np.asarray(worth)
    return Searches(table, values, means, max(table.value(n, seed=0) for n in table.networks), pool)


def text_table(searches: Searches) -> TextTable:
    """How far the best lies below the table's, to be printed by rich."""
    counts = [n for n in COUNTS if n <= max(values.shape[1] for values in searches.values.values())]
    number = next(iter(searches.values.values())).shape[0]
    title = f"Points below the best of the table, the mean of {number} searches, after so many trainings"
    shown = TextTable(Label("search"), *(Number(str(n)) for n in counts), title=title)
    for sampler, screened in searches.values:
        best = searches.best(sampler, screened)
        below = [f"{searches.top - best[:, n - 1].mean():.2f}" if n <= best.shape[1] else "" for n in counts]
        shown.add_row(f"{sampler}, screened of {searches.pool}" if screened else sampler, *below)
    return shown


def summary(searches: Searches) -> Iterator[str]:
    """What the screen was worth, two lines a sampler."""
    networks = len(searches.table)
    for sampler in SAMPLERS:
        few, many = searches.values[sampler, True].shape[1], searches.values[sampler, False].shape[1]
        needed = searches.needed(sampler, few)
        yield (
            f"{sampler}: what was trained from the {FEWEST + 1}th to the {few}th was better by "
            f"{_points(searches.picked(sampler, few))} points where it was screened."
        )
        equal, all_plain = (_points(searches.lead(sampler, few, plain)) for plain in (few, many))
        whole = ", the whole table" if many == networks else ""
        yield (
            f"{sampler}: the best of {few} screened ones lies {equal} points above that of {few} others, and "
            f"{all_plain} above that of {many}{whole}; of others it takes {needed or f'more than {many}'}. "
            f"By all their trainings it is worth {_points(searches.worth(sampler, few, few))} and "
            f"{_points(searches.worth(sampler, few, many))} more."
        )

"""Is "better" said where nothing is? Searches and their confirmation, replayed among networks that are equal.

The accuracies of the table's best networks, within a point of one another, are shuffled, and each training draws the
next of them: no network is better than another. What follows is what a search does. The best few by one training race,
and the winner is held against a start and the best random candidate, by the confirmation's own functions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blockforge.errors import SearchError
from blockforge.search.confirm.entrants import chosen
from blockforge.search.confirm.race import Key, Training, next_trainings
from blockforge.search.confirm.result import Confirmation, confirmed
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.fidelity.recall import MARGIN
from blockforge.search.study.records import TrialRecord

CANDIDATES, DRAWN, TOP, SEEDS, IMAGES = 64, 10, 5, 5, 10_000
"""A search's defaults: candidates, how many of them are random, finalists and their seeds; test images."""


@dataclass(frozen=True)
class Claims:
    """What was said in searches in which nothing is better.

    Attributes:
        searches: how many.
        better: in how many "better" was said of the winner beside anything.
        looked: by how much, on average, the winner's first training was above the mean of all: luck alone.
        equals: networks whose accuracies were shuffled.
        values: how many accuracies.
    """

    searches: int
    better: int
    looked: float
    equals: int
    values: int

    @property
    def share(self) -> tuple[float, float, float]:
        """Of searches in which it was said, with Wilson's 95% interval."""
        n, p, z = self.searches, self.better / self.searches, 1.96
        middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return p, max(0.0, (middle - reach) / (1 + z * z / n)), min(1.0, (middle + reach) / (1 + z * z / n))


def replay_claims(table: Benchmark, searches: int, first: int = 0) -> Claims:
    """So many searches, with the seeds from `first`. Raises: SearchError where the table has hardly an equal."""
    best = table.value(table.best)
    equals = [n for n in table.networks if table.value(n) > best - MARGIN]
    values = [table.value(n, seed=seed) for n in equals for seed in range(table.seeds(n))]
    if len(values) < 5:
        raise SearchError(f"'{table.name}' holds {len(values)} trainings of near-equal networks\n  hint: 5 or more")
    better, looked = 0, 0.0
    for seed in range(first, first + searches):
        known, seen = _search(values, seed)
        better += any(other.lead is not None and other.lead.better for other in known.baselines)
        looked += (seen - sum(values) / len(values)) / searches
    return Claims(searches, better, looked, len(equals), len(values))


def _search(values: Sequence[float], seed: int) -> tuple[Confirmation, float]:
    """A search and its confirmation; and what the winner had looked like."""
    deck = _shuffled(values, random.Random(seed))
    records = [
        TrialRecord(
            i, "scored", score=(score := next(deck)), values=(score,), hash=f"{i:04d}", macs=1, params=1,
            start="seed" if i == 0 else None, random=0 < i <= DRAWN,
        )
        for i in range(CANDIDATES)
    ]  # fmt: skip
    entered = chosen(records, (1.0,), TOP)
    known: dict[Key, Training] = {}
    while missing := next_trainings(entered, known, SEEDS)[0]:
        top1 = next(deck)
        known[missing[0]] = Training(*missing[0], top1, top1, IMAGES)
    result = confirmed(entered, known, SEEDS)
    assert result.winner is not None
    return result, result.winner.entrant.trial.score or 0.0


def _shuffled(values: Sequence[float], rng: random.Random) -> Iterator[float]:
    """All of them in random order, and again, without end."""
    while True:
        yield from rng.sample(values, len(values))


def summary(few: Claims, many: Claims) -> Iterator[str]:
    """What was said."""
    yield (
        f"Nothing is better: {few.values} accuracies of {few.equals} near-equal networks, shuffled. "
        f'{few.searches} searches said "better" {few.better} times; '
        f"the winners had looked {few.looked:.2f} points better than they are."
    )
    share, low, high = many.share
    yield f"Of {many.searches} such searches {share:.1%} said it ({low:.1%} {high:.1%})."

"""Which training of a confirmation comes next, from those that there are.

The finalists race: all of them are trained with a few seeds, then those that are not behind the leader by more than
the interval of the difference with one more each, until one is left or no seed is. The highest mean wins; where
something cheaper is wanted (`aim`), the cheapest of those that are not worse than a start, which runs with them. One
finalist has won. What the winner is worth is then measured with seeds that took no part in choosing it, and so are the
baselines: whoever wins a race of equals was lucky in it. Nothing is kept but trainings, so this is asked anew whenever
one has ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from blockforge.search.confirm.aim import Aim
from blockforge.search.confirm.entrants import Entrants
from blockforge.search.confirm.statistics import difference, rounding

FIRST = 3
"""Seeds that every finalist is trained with."""
RACE, FINAL = 10_000, 20_000
"""The first seed of each part; searches count theirs from 0."""


@dataclass(frozen=True)
class Training:
    """A network trained again with a seed. `top1` and `test` in percent.

    Attributes:
        top1: on the images to choose by; None: it failed, as `reason` says.
        test: on the test images; None where they were not looked at.
        images: how many the last figure rests on: of the test images, or those to choose by.
    """

    hash: str
    seed: int
    top1: float | None = None
    test: float | None = None
    images: float = 0.0
    seconds: float | None = None
    reason: str | None = None

    @property
    def key(self) -> Key:
        return self.hash, self.seed

    @property
    def final(self) -> bool:
        """Whether it measures; else it chooses."""
        return self.seed >= FINAL


Key = tuple[str, int]


@dataclass
class Race:
    """Where the race stands.

    Attributes:
        alive: finalists that may still win, by their hash.
        dropped: the others: after how many seeds, and why.
        missing: trainings that it needs next.
        enough: by the aim, finalists that are known to be not worse than the start; the cheapest of them wins.
        values: of every network that runs, by seed.
    """

    alive: list[str]
    dropped: dict[str, str] = field(default_factory=dict)
    missing: list[Key] = field(default_factory=list)
    enough: list[str] = field(default_factory=list)
    values: dict[str, dict[int, float]] = field(default_factory=dict)

    @property
    def winner(self) -> str | None:
        """The hash of the winner, once there is one."""
        if self.missing or not self.alive:
            return None
        if len(self.alive) == 1:
            return self.alive[0]
        return self.enough[0] if self.enough else max(self.alive, key=self.mean)

    def mean(self, network: str) -> float:
        """Of the seeds that it was trained with."""
        return statistics.fmean(self.values[network].values())


def run_race(finalists: Sequence[str], trainings: Mapping[Key, Training], seeds: int, aim: Aim | None = None) -> Race:
    """The race as far as trainings tell it.

    Args:
        finalists: hashes, the best of the search first; of equal means the earlier one wins.
        seeds: that each is trained with at most.
        aim: what it is for; None: the highest accuracy.
    """
    race = Race(list(dict.fromkeys(finalists)))
    beside = [aim.start] if aim is not None else []
    if len(race.alive) == 1:  # there is nothing to choose, unless it fails
        numbers = [first + i for first in (RACE, FINAL) for i in range(seeds)]
        _drop_failed(race, trainings, [(network, seed) for network in (*race.alive, *beside) for seed in numbers])
        if race.dropped:
            race.alive = []
        return race
    for count in range(min(FIRST, seeds), seeds + 1):
        wanted = [(network, RACE + i) for i in range(count) for network in (*race.alive, *beside)]
        race.missing = [key for key in wanted if key not in trainings]
        _drop_failed(race, trainings, wanted)
        if any(network in race.dropped for network in beside):
            race.alive, race.missing = [], []  # there is nothing to be cheaper than
        if race.missing or len(race.alive) < (2 if aim is None else 1):
            break
        if aim is None:
            _drop_behind(race, count, trainings)
        else:
            _drop_by_aim(race, count, trainings, aim)
        if len(race.alive) < 2:
            break
    return race


def _drop_failed(race: Race, trainings: Mapping[Key, Training], wanted: Sequence[Key]) -> None:
    for network, seed in wanted:
        known = trainings.get((network, seed))
        if known is None:
            continue
        if known.top1 is None:
            race.dropped[network] = f"seed {seed} failed: {known.reason}"
        else:
            race.values.setdefault(network, {})[seed] = known.top1
    race.alive = [network for network in race.alive if network not in race.dropped]
    race.missing = [key for key in race.missing if key[0] not in race.dropped]


def _drop_behind(race: Race, count: int, trainings: Mapping[Key, Training]) -> None:
    leader = max(race.alive, key=race.mean)
    for network in race.alive:
        floor = rounding(trainings[network, RACE].images)
        lead = difference(race.values[leader], race.values[network], least_sd=floor)
        if network != leader and lead.better:
            race.dropped[network] = f"behind by {lead.estimate:.2f} after {count} seeds"
    race.alive = [network for network in race.alive if network not in race.dropped]


def _drop_by_aim(race: Race, count: int, trainings: Mapping[Key, Training], aim: Aim) -> None:
    """Those that are known to be worse than the start by more than the margin go, but for the best of all, and those
    that are no cheaper than one that is known not to be."""
    leads = {
        network: difference(
            race.values[network], race.values[aim.start], least_sd=rounding(trainings[network, RACE].images)
        )
        for network in race.alive
    }
    good = [network for network, lead in leads.items() if lead.not_inferior(aim.margin)]
    race.enough = sorted(good, key=lambda network: aim.costs[network])[:1]
    best = max(race.alive, key=race.mean)  # where all are worse, how much worse the best of them is will be told
    for network, lead in leads.items():
        if lead.high < -aim.margin and network != best:
            race.dropped[network] = f"worse than {aim.label} by {-lead.estimate:.2f} after {count} seeds"
        elif race.enough and network not in race.enough and not aim.costs[network] < aim.costs[race.enough[0]]:
            race.dropped[network] = f"no cheaper than one that is good enough after {count} seeds"
    race.alive = [network for network in race.alive if network not in race.dropped]


def next_trainings(entered: Entrants, trainings: Mapping[Key, Training], seeds: int) -> tuple[list[Key], int]:
    """What is to be trained next, the most wanted first; and how many trainings there may be, all told.

    While the race waits for its round to end, others may measure the baselines.
    """
    race = run_race([e.hash for e in entered.finalists], trainings, seeds, entered.aim)
    if not race.alive:
        return [], len(trainings)  # every finalist failed, or there is none: there is nothing to compare
    winner = [race.winner] if race.winner is not None else []
    measured = list(dict.fromkeys([*winner, *(e.hash for e in entered.baselines)]))
    final = [
        key for i in range(seeds) for key in ((network, FINAL + i) for network in measured) if key not in trainings
    ]
    running = [*race.alive, *([entered.aim.start] if entered.aim is not None else [])]
    left = 0 if winner else sum(seeds - len(race.values.get(n, ())) for n in running) + seeds
    return [*race.missing, *final], len(trainings) + len(final) + left

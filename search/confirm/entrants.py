"""Which networks of a search are trained again: the best, and what they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord, ranked

Role = Literal["finalist", "start", "random"]


@dataclass(frozen=True)
class Entrant:
    """A network that is trained again.

    Attributes:
        label: what tables call it.
        trial: the trial that it was, with its place in the ranking.
    """

    role: Role
    label: str
    trial: TrialRecord

    @property
    def hash(self) -> str:
        return str(self.trial.hash)


@dataclass(frozen=True)
class Entrants:
    """The networks of a confirmation.

    Attributes:
        finalists: the best of the search, the best first; one of them will be the winner.
        baselines: what the winner is compared with: the specs that the search began with, and the best candidate that
            was drawn at random. A finalist may be one of them too.
        drawn: how many distinct random candidates that one is the best of.
    """

    finalists: tuple[Entrant, ...]
    baselines: tuple[Entrant, ...]
    drawn: int = 0

    def __iter__(self) -> Iterator[Entrant]:
        return iter((*self.finalists, *self.baselines))


def entrants(plan: Plan, records: Iterable[TrialRecord]) -> Entrants:
    """Those of a search as it stands."""
    records = list(records)
    best_first = [r for r in ranked(records, plan.signs) if r.hash is not None]
    places = {r.hash: place for place, r in enumerate(best_first, 1)}
    top = plan.config.confirm.top or 0
    finalists = tuple(Entrant("finalist", f"rank {places[r.hash]}", r) for r in best_first[:top])
    names = {r.hash: r.start for r in reversed(records) if r.start is not None}
    starts = [Entrant("start", f"start {names[r.hash]}", r) for r in best_first if r.hash in names]
    drawn = {r.hash for r in records if r.random and r.state == "scored"} - names.keys()
    of_chance = [r for r in best_first if r.hash in drawn][:1]
    label = f"best of {len(drawn)} random"
    return Entrants(finalists, (*starts, *(Entrant("random", label, r) for r in of_chance)), len(drawn))

"""The aim of a search for something cheaper: of the networks that are not worse than a start by more than a margin the
one that costs least. "Not worse" is said with the whole interval of the difference, as "better" is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from blockforge.search.confirm.statistics import Interval
from blockforge.search.objectives.costs import COSTS
from blockforge.search.study import pareto
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord, losses

_SHOWN = {"macs": "MACs"}


@dataclass(frozen=True)
class Aim:
    """What the race of a confirmation is for, where it is not the highest accuracy.

    Attributes:
        margin: points that the winner may have less than the start.
        start: hash of the network that it is compared with; it runs in the race, and cannot win.
        label: what tables call that one.
        cost: name of what is to be small.
        costs: of finalists and the start, by their hash; NaN where it is not known.
    """

    margin: float
    start: str
    label: str
    cost: str
    costs: Mapping[str, float] = field(default_factory=dict)

    def verdict(self, winner: str, lead: Interval) -> str:
        """What may be said of the winner beside the start."""
        share = self.costs.get(winner, math.nan) / self.costs.get(self.start, math.nan)
        at = f", at {share:.0%} of its {_SHOWN.get(self.cost, self.cost)}" if math.isfinite(share) else ""
        by = f"{lead.estimate:+.2f} points ({lead.low:+.2f} to {lead.high:+.2f})"
        if lead.not_inferior(self.margin):
            also = "Better than" if lead.better else f"Not worse by more than {self.margin:g} points than"
            return f"{also} {self.label}{at}: {by}"
        if lead.worse:
            return f"Worse than {self.label}{at}: {by}"
        return f"Not shown to be within {self.margin:g} points of {self.label}{at}: {by}"


def cost_of(plan: Plan, trial: TrialRecord) -> float:
    """What a search for something cheaper wants to be small, of a trial; NaN where it was not measured."""
    name = plan.config.goal.cheaper
    value = getattr(trial, name) if name in COSTS else trial.values[-1] if trial.values else None
    return float(value) if value is not None else math.nan


def front_first(best_first: Sequence[TrialRecord], signs: Sequence[float]) -> list[TrialRecord]:
    """Candidates by non-dominated rank, within a rank by the first value, the best first: the end of the front that
    may keep the accuracy."""
    ordered: list[TrialRecord] = []
    for rung in sorted({r.rung for r in best_first}, reverse=True):
        level = [r for r in best_first if r.rung == rung]
        rows = losses(level, signs)
        places = pareto.ranks(rows)
        ordered += [level[i] for i in sorted(range(len(level)), key=lambda i: (places[i], rows[i, 0], i))]
    return ordered

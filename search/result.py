"""What a search gives back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from blockforge.search.records import EVALUATED, TrialRecord, Verdict, pareto_front, ranked
from blockforge.search.score import size_correlations
from blockforge.search.space import candidate
from blockforge.spec import Spec
from blockforge.units import Budget


@dataclass
class SearchResult:
    """The trials of a search, and the best of them.

    Attributes:
        space: the spec with holes that was searched.
        budget: its limits.
        objective: what gave the scores.
        target: how many evaluated candidates were asked for.
        trials: every trial, in order.
        seconds: how long this run took.
        stopped: why it ended before `target`, if it did.
        signal: the signal that stopped it, if one did.
        folder: where its files are.
    """

    space: Spec
    budget: Budget
    objective: str
    target: int
    trials: list[TrialRecord] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    signal: int | None = None
    folder: Path | None = None

    @property
    def counts(self) -> Counter[Verdict]:
        """Trials by what became of them."""
        return Counter(t.state for t in self.trials)

    @property
    def evaluated(self) -> int:
        """Distinct candidates within the budget that were evaluated, failed ones included."""
        return sum(self.counts[state] for state in EVALUATED)

    @property
    def ranked(self) -> list[TrialRecord]:
        """Scored candidates, the best first."""
        return ranked(self.trials)

    @property
    def best(self) -> TrialRecord | None:
        """The candidate with the highest score."""
        return next(iter(self.ranked), None)

    @property
    def pareto(self) -> list[TrialRecord]:
        """Candidates that no other beats in both score and MACs, the smallest first."""
        return pareto_front(self.trials)

    @property
    def correlations(self) -> dict[str, float | None]:
        """Kendall's tau of the score with each size baseline."""
        return size_correlations(self.trials)

    def spec(self, trial: TrialRecord) -> Spec:
        """The ordinary spec of a trial's candidate."""
        notes = {
            "space": self.space.name,
            "trial": trial.number,
            "objective": self.objective,
            "score": trial.score,
        }
        if self.budget.limits:
            notes["budget"] = str(self.budget)
        return candidate(self.space, trial.holes, f"{self.space.name}_{(trial.hash or '')[:8]}", notes)

"""What a search gives back."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockforge.search.confirm.result import Confirmation
from blockforge.search.objectives.correlation import size_correlations
from blockforge.search.objectives.costs import COSTS
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import EVALUATED, TrialRecord, Verdict, candidate_of, pareto_front, ranked
from blockforge.spec import Spec
from blockforge.units import Budget

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from blockforge.train import Recipe


@dataclass(repr=False)
class SearchResult:
    """The trials of a search, and the best of them.

    Attributes:
        plan: what was searched, and for what.
        trials: every trial, in order.
        seconds: how long this run took.
        stopped: why it ended before the target, if it did.
        signal: the signal that stopped it, if one did.
        folder: where its files are.
        confirmed: what the best were worth when they were trained again; None: they were not.
    """

    plan: Plan
    trials: list[TrialRecord] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None
    signal: int | None = None
    folder: Path | None = None
    confirmed: Confirmation | None = None

    def __repr__(self) -> str:
        """A line, as a notebook shows it: the settings and the trials are pages of text."""
        within = f" within {limits}" if (limits := str(self.budget)) else ""
        text = f"{self.space.name}: {self.evaluated} of {self.target} candidates evaluated{within}"
        if self.best is not None:
            values = zip(self.plan.value_names, self.best.values or (), strict=True)
            named = ", ".join(f"{name} {value:.5g}" for name, value in values)
            text += f"; the first of them trial {self.best.number}, {named}"
        return f"<SearchResult {text}{f'; in {self.folder}' if self.folder else ''}>"

    @property
    def space(self) -> Spec:
        """The spec with holes that was searched."""
        return self.plan.space

    @property
    def budget(self) -> Budget:
        """The limits of candidates."""
        return self.plan.budget

    @property
    def objective(self) -> str:
        """What gave the scores."""
        return self.plan.objective

    @property
    def heading(self) -> str:
        """What the ranking is: by which objective, measured on what."""
        together = ", ranked together" if len(self.plan.directions) > 1 else ""
        cost = f", each at {self.plan.fit:.0%} to 100% of {self.budget}" if self.plan.fit is not None else ""
        return f"Candidates by {self.plan.about}{together}{cost}"

    @property
    def target(self) -> int:
        """How many evaluated candidates were asked for."""
        return self.plan.target

    @property
    def counts(self) -> Counter[Verdict]:
        """Trials by what became of them."""
        return Counter(t.state for t in self.trials)

    @property
    def evaluated(self) -> int:
        """Distinct candidates within the budget that were evaluated, failed ones included."""
        return sum(t.state in EVALUATED and t.rung == 0 for t in self.trials)

    @property
    def first_failure(self) -> TrialRecord | None:
        """The first trial whose evaluation failed."""
        return next((t for t in self.trials if t.state == "failed"), None)

    @property
    def ranked(self) -> list[TrialRecord]:
        """Scored candidates, the best first."""
        return ranked(self.trials, self.plan.signs)

    @property
    def best(self) -> TrialRecord | None:
        """The candidate with the best score; with several values, the first of the front."""
        return next(iter(self.ranked), None)

    @property
    def pareto(self) -> list[TrialRecord]:
        """Candidates that no other beats in all values (of a single one and MACs), the smallest first."""
        return pareto_front(self.trials, self.plan.signs)

    @property
    def correlations(self) -> dict[str, float | None]:
        """Kendall's tau of the first value with each size baseline, on the lowest rung."""
        first = [t for t in self.trials if t.state == "scored" and t.rung == 0 and t.values]
        costs = {cost: [getattr(t, cost) for t in first] for cost in COSTS}
        return size_correlations([t.values[0] for t in first if t.values], costs, [t.capacity for t in first])

    def spec(self, trial: TrialRecord) -> Spec:
        """The ordinary spec of a trial's candidate."""
        notes: dict[str, Any] = {"space": self.space.name, "trial": trial.number, "objective": self.objective}
        if trial.score is not None:
            notes["score"] = trial.score
        if chosen := {k: v for k, v in trial.holes.items() if k in self.plan.recipe_holes}:
            notes["recipe"] = {name.removeprefix("recipe."): value for name, value in chosen.items()}
        notes |= {k: v for k, v in trial.figures.items() if k not in notes and len(trial.figures) > 1}
        if known := str(self.budget):
            notes["budget"] = known
        return candidate_of(self.space, trial, notes)

    def recipe(self, trial: TrialRecord) -> Recipe | None:
        """What a trial's candidate is trained by, where the search's recipe has holes or is written out."""
        return self.plan.recipe_of(trial)

    def dataframe(self) -> pandas.DataFrame:
        """All trials as a table, a column a figure and a hole. Needs the extra `notebook`."""
        from blockforge.extras import need

        need("notebook", "pandas")
        import pandas as pd

        from blockforge.search.report.files import rows

        header, *lines = rows(self)
        return pd.DataFrame(lines, columns=header).set_index("number")

    def plot(self) -> plotly.graph_objects.Figure:
        """The candidates and their front, to be shown in a notebook. Needs the extra `notebook`."""
        from blockforge.search.report.notebook import scatter

        return scatter(self)

    def plot_history(self) -> plotly.graph_objects.Figure:
        """Values in the order in which they came, with the best so far. Needs the extra `notebook`."""
        from blockforge.search.report.notebook import history

        return history(self)

    def report(self, file: str | os.PathLike[str]) -> None:
        """Write the report as one HTML file that needs no network."""
        from blockforge.files import write_text
        from blockforge.search.report.html import page

        write_text(Path(file), page(self))

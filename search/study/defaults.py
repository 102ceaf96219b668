"""The settings of a run: as given, else as in the study, else the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockforge.errors import SearchError
from blockforge.search.budget import as_budget
from blockforge.search.objectives.measure import as_measure
from blockforge.search.space.load import DEFAULT_SPACE, load_space
from blockforge.search.space.starts import find_starts
from blockforge.search.study.settings import IDENTITY, SETTINGS, Objectives, Plan, read_plan
from blockforge.spec import SpecLike
from blockforge.units import Budget

Overrides = Mapping[str, Any] | list[str] | None


@dataclass(frozen=True)
class Given:
    """The settings of a run, as far as they are given."""

    space: SpecLike | None
    overrides: Overrides
    budget: Budget | str | Sequence[str] | None
    seed: int | None
    objectives: Objectives | None
    weights: Sequence[float] | None
    rungs: Objectives | None
    eta: int | None
    start: Sequence[SpecLike] | None
    fit: float | None
    sampler: str | None
    trials: int
    trial_timeout: float | None = None


def settle(given: Given, attrs: Mapping[str, Any] | None) -> Plan:
    """The settings of a run: as given, else as in the study, else the defaults."""
    attrs = attrs if attrs and IDENTITY in attrs else None  # without one its run died before it began
    known = read_plan(attrs, evaluating=False) if attrs else None
    seed = given.seed if given.seed is not None else known.seed if known else 0
    changes: dict[str, Any] = {"target": given.trials, "seed": seed}
    if given.space is not None or given.overrides or known is None:
        source = given.space if given.space is not None else known.space if known else DEFAULT_SPACE
        changes["space"] = load_space(source, given.overrides)
    if given.budget is not None or known is None:
        changes["budget"] = as_budget(given.budget)
    texts = attrs[SETTINGS] if attrs else {"objectives": ["expressivity"], "rungs": []}
    chosen = given.objectives if given.objectives is not None else texts["objectives"]
    changes["objectives"] = tuple(as_measure(o, seed) for o in chosen)
    changes["rungs"] = tuple(as_measure(o, seed) for o in (given.rungs if given.rungs is not None else texts["rungs"]))
    for name in ("eta", "fit", "sampler", "trial_timeout"):
        if (value := getattr(given, name)) is not None:
            changes[name] = value
    if given.weights is not None:
        changes["weights"] = tuple(float(w) for w in given.weights)
    plan = dataclasses.replace(known, **changes) if known else Plan(**changes)
    if plan.fit is not None and not plan.budget.limits:
        raise SearchError("--fit needs a budget to fit to\n  hint: --budget 5GFLOPs")
    starts = find_starts(plan.space, given.start or ())
    return dataclasses.replace(plan, starts={**(plan.starts or {}), **starts}) if starts else plan

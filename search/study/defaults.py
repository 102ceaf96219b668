"""What a new search does where its settings name no objective: what ranks its candidates, and at which cost.

Without data nothing can be trained: candidates are ranked by `capacity`, a size, and so at equal cost, their widths
scaled to the budget. With data they are ranked by training, in rungs whose lengths were measured (`--fidelity`, a file
of `blockforge bench fidelity`) or are those below.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import Any

from blockforge.compiler import compile_spec
from blockforge.compiler.candidates import compile_candidate
from blockforge.errors import BudgetError, SearchError, SpecError
from blockforge.notes import note
from blockforge.search.budget import excess
from blockforge.search.fidelity.record import read_fidelity
from blockforge.search.objectives.measure import as_measure
from blockforge.search.space.fit import fit
from blockforge.search.space.load import draw
from blockforge.search.study.config import SearchConfig, setting
from blockforge.spec import Hole, Spec
from blockforge.train.opening import check_name
from blockforge.units import Budget

SHARE = 0.95
"""The least share of the budget that candidates cost where nobody says another."""
STEPS, ETA = (160, 320), 3
"""Steps of training on each rung where nobody has measured them. On Fashion-MNIST in the space tiny the best third
after 160 steps held all networks that were good after 320, after 80 steps 78% of them, after 20 and 40 about as many as
chance does."""
UNBOUNDED = 1_000_000
"""Trials where something else is to end the search."""
_PROBES = 8


@dataclass(frozen=True)
class Ranking:
    """How a search ranks by training.

    Attributes:
        steps: of the optimiser, for each rung.
        repeats: trainings on the first of several rungs, whose mean counts.
        eta: the best 1/eta of a rung go up.
    """

    steps: tuple[int, ...] = STEPS
    repeats: int = 1
    eta: int = ETA

    def objectives(self, data: str, recipe: str | dict[str, Any] | None) -> list[str]:
        """As text, the cheapest first."""
        more = f",recipe={recipe}" if isinstance(recipe, str) else ""  # one that is written out comes with each trial
        first, *others = (f"micro:steps={steps},data={data}{more}" for steps in self.steps)
        return [first + (f",repeats={self.repeats}" if self.repeats > 1 else ""), *others]


def settled(config: SearchConfig, space: Spec, budget: Budget) -> SearchConfig:
    """Settings with what ranks in them, and whether widths are scaled; as they are where they name objectives.

    Raises: SearchError if `goal.fidelity` is no such file, or stands without data.
    """
    goal, cost = config.goal, config.budget
    if goal.fidelity is not None and goal.data is None:
        raise SearchError(
            "a fidelity says how to train on data, and there are none\n  hint: --data, as in --data fashion"
        ).about("goal", "fidelity")
    if config.confirm.control and goal.data is None:
        raise SearchError(
            "a control is confirmed by training on data, and there are none\n  hint: --data, as in --data fashion"
        ).about("confirm", "control")
    if goal.cheaper is not None:
        with setting("goal", "cheaper"):
            config = _with_cheaper(config, goal.cheaper)
        goal = config.goal
    if "trials" not in goal.model_fields_set and (goal.time is not None or goal.gpu_hours is not None):
        goal = goal.model_copy(update={"trials": UNBOUNDED})
        config = config.model_copy(update={"goal": goal})
    if "objectives" in goal.model_fields_set:
        return config
    changes: dict[str, Any] = {"objectives": goal.objectives}
    if goal.data is not None:
        with setting("goal", "data"):
            changes = _by_training(config, goal.data)
    goal = goal.model_copy(update=changes)
    if "fit" not in cost.model_fields_set and budget.limits:
        share = SHARE if can_fit(space, budget, SHARE) else None
        if share is None:
            text = f"hardly a candidate can be scaled to {SHARE:.0%} to 100% of {budget}: they are compared as they are"
            note(f"{text}, and size may decide")
        cost = cost.model_copy(update={"fit": share})
    return config.model_copy(update={"goal": goal, "budget": cost})


def _with_cheaper(config: SearchConfig, cost: str) -> SearchConfig:
    """Settings of a search for something cheaper: the cost is an objective beside the accuracy."""
    goal = config.goal
    if goal.data is None:
        text = "something cheaper is as good by training on data, and there are none"
        raise SearchError(f"{text}\n  hint: --data, as in --data fashion")
    if not config.space.start:
        raise SearchError(f"there is no network to have less {cost} than\n  hint: --around SPEC, or --start SPEC")
    if goal.weights:
        raise SearchError("weights add what --cheaper keeps apart: the accuracy and the cost\n  hint: leave out one")
    if config.budget.fit is not None:
        text = "--fit would bring the start itself to the budget, which is to be compared as it is"
        raise SearchError(f"{text}\n  hint: leave it out where --cheaper is given")
    if as_measure(cost).direction != "minimize":
        raise SearchError(f"{cost} is to be large, and no cost\n  hint: --cheaper macs, params, latency")
    own = list(goal.objectives) if "objectives" in goal.model_fields_set else _by_training(config, goal.data)
    if not isinstance(own, dict):
        own = {"objectives": own}
    if cost not in own["objectives"]:
        own = {**own, "objectives": [*own["objectives"], cost]}
    return config.model_copy(update={"goal": goal.model_copy(update=own)})


def _by_training(config: SearchConfig, data: str) -> dict[str, Any]:
    """Objective, rungs and eta for a data set; rungs and eta that were given stay."""
    goal = config.goal
    if "," in data:
        hint = "a path without a comma; or --objective mine.py:score, which opens it"
        raise SearchError(f"'{data}' cannot stand in the text of an objective\n  hint: {hint}")
    check_name(data)
    ranking = Ranking() if goal.fidelity is None else _measured(goal.fidelity, data, config.confirm.recipe)
    *rungs, objective = ranking.objectives(data, config.confirm.recipe)
    given = goal.model_fields_set
    own: dict[str, Any] = {key: getattr(goal, key) for key in ("rungs", "eta") if key in given}
    if goal.fidelity is None and not own:
        steps = " and ".join(map(str, ranking.steps))
        note(
            f"ranks after {steps} steps of training, not measured on these data: blockforge bench fidelity measures it"
        )
    return {"objectives": [objective], "rungs": rungs, "eta": ranking.eta, **own}


def _measured(file: str, data: str, recipe: str | dict[str, Any] | None) -> Ranking:
    """What a file of fidelity says. Raises: SearchError."""
    with setting("goal", "fidelity"):
        fidelity = read_fidelity(file)
    named = "one of its own" if isinstance(recipe, dict) else recipe or "micro"
    for what, known, here in (("data", fidelity.data, data), ("recipe", fidelity.recipe, named)):
        if known != here:
            note(f"{file} was measured on the {what} {known}, and not on {here}")
    choice = fidelity.choose()
    if choice.eta < 2:
        return Ranking((choice.steps,))
    return Ranking((choice.steps, fidelity.top.steps), choice.repeats, choice.eta)


def can_fit(space: Spec, budget: Budget, share: float) -> bool:
    """Whether one of the first random candidates, its widths scaled to a share of a budget, keeps all of it: of a limit
    on training memory or latency too, which widths are not scaled to."""
    for number in range(_PROBES):
        answers: dict[str, Any] = {}
        try:
            drawn = compile_candidate(space, functools.partial(_asked, answers, random.Random(number)))
            fitted = fit(compile_spec(drawn.spec), budget, share)
        except (SpecError, BudgetError):
            continue
        if all(over <= 0 for over in excess(fitted, budget).values()):
            return True
    return False


def _asked(answers: dict[str, Any], rng: random.Random, hole: Hole) -> Any:
    return answers.setdefault(hole.name, draw(hole, rng))

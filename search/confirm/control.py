"""The control of a confirmation: random candidates at the cost of the search, in a study of their own beside it.

Of the random candidates that a search begins with the best is the best of few; a search must beat what its whole cost
would have bought without it. So as many candidates as it has evaluated are drawn with its seed and evaluated alike,
rung by rung, in the study `NAME-control`; the best of them enters the confirmation.
"""

from __future__ import annotations

import contextlib
import dataclasses

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study

from blockforge.search.study.attributes import attributes
from blockforge.search.study.history import History
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord
from blockforge.search.study.storage import open_study

CONTROL = "control"


def control_plan(plan: Plan, trials: int) -> Plan:
    """The same search by chance: nothing to begin with, nothing learnt, no end but the number of candidates."""
    config = plan.config
    changed = config.model_copy(
        update={
            "space": config.space.model_copy(update={"start": {}}),
            "goal": config.goal.model_copy(update={"trials": trials, "time": None, "gpu_hours": None}),
            "confirm": config.confirm.model_copy(update={"top": None}),
            "proposals": config.proposals.model_copy(update={"sampler": "random", "screen": None}),
        }
    )
    return dataclasses.replace(plan, config=changed)


def open_control(storage: BaseStorage, study: str, plan: Plan) -> Study:
    """The study of the control beside a search's, made if there is none."""
    return open_study(
        storage, attributes(plan), name=f"{study}-{CONTROL}", directions=plan.directions,
        metric_names=plan.metric_names,
    )  # fmt: skip


def read_control(storage: BaseStorage, study: str, plan: Plan) -> list[TrialRecord]:
    """The control's trials by number, none where the search has none or has not come to it."""
    if not plan.config.confirm.control:
        return []
    with contextlib.suppress(KeyError):
        known = optuna.load_study(storage=storage, study_name=f"{study}-{CONTROL}")
        history = History(known, plan.holes, plan.signs, len(plan.levels))
        history.sync()
        return [record for _, record in sorted(history.records.items())]
    return []

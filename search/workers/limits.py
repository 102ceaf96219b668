"""What ends a search besides trials: the time of a run, and hours of evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable

from optuna.study import Study

from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord

UNTIL = "until"
"""Attribute of a study: when its run begins no more candidates, in seconds since 1970; None: at no time."""


def begin(study: Study, plan: Plan) -> None:
    """Say how long the run that begins now may take. Workers on other machines go by their own clocks."""
    until = time.time() + plan.time if plan.time is not None else None
    if until is not None or study.user_attrs.get(UNTIL) is not None:
        study.set_user_attr(UNTIL, until)


class Limits:
    """Tells a worker when no candidate is to be begun any more."""

    def __init__(self, study: Study, plan: Plan) -> None:
        self.plan, self.until = plan, study.user_attrs.get(UNTIL)
        workers = plan.config.workers.gpus_per_worker
        self.gpus = workers if workers is not None else 1.0

    def reached(self, records: Iterable[TrialRecord]) -> str | None:
        """Why, if so."""
        if self.until is not None and time.time() >= self.until:
            return f"its time was over (--time {self.plan.config.goal.time})"
        most = self.plan.config.goal.gpu_hours
        if most is not None and self.gpus * sum(r.seconds or 0.0 for r in records) >= 3600 * most:
            return f"its hours were used up (--gpu-hours {most:g})"
        return None

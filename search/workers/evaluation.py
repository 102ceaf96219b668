"""One evaluation of a worker: the objectives of a rung, and what became of them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
import traceback
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.study import Study
from optuna.trial import FrozenTrial

from blockforge.interrupts import EvaluationInterrupts, Overtime, Stopped
from blockforge.search.objectives.costs import COSTS
from blockforge.search.objectives.measure import Measure
from blockforge.search.objectives.trial import ObjectiveTrial
from blockforge.search.study.folder import TRACKED, TRIAL_FOLDERS
from blockforge.search.study.plan import Plan
from blockforge.search.workers.checks import Candidate
from blockforge.search.workers.mirror import Mirror
from blockforge.search.workers.proposals import Proposals, PrunerError
from blockforge.trackers import End, Run, Trackers

MAX_TRACE = 4000
_ENDS: dict[str, End] = {"scored": "finished", "pruned": "stopped", "interrupted": "stopped"}


class Evaluation:
    """Evaluates candidates of a study.

    Args:
        folder: for what evaluations leave behind; None: nothing stays.
        mirror: where that is kept as well.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        proposals: Proposals,
        interrupts: EvaluationInterrupts,
        folder: Path | None,
        mirror: Mirror | None = None,
    ) -> None:
        self.plan, self.study, self.proposals = plan, study, proposals
        self.interrupts, self.folder, self.mirror = interrupts, folder, mirror

    def __call__(self, candidate: Candidate, number: int, rung: int) -> dict[str, Any]:
        """The outcome of its trial, of this number."""
        trackers = self._trackers(candidate, number, rung)
        outcome = self._outcome(candidate, number, rung, trackers)
        seconds = {"seconds": outcome["seconds"]} if "seconds" in outcome else {}
        values = dict(zip(self.plan.metric_names, outcome.get("values", ()), strict=False))
        trackers.end({**outcome.get("figures", {}), **values, **seconds}, _ENDS.get(outcome["state"], "failed"))
        return outcome

    def _trackers(self, candidate: Candidate, number: int, rung: int) -> Trackers:
        names = self.plan.config.log.trackers if self.folder is not None else ()
        own = {name: getattr(candidate.arch, name) for name in COSTS}
        origin = {"network": candidate.name, "rung": rung, "trial": number}
        settings = {**candidate.draft.answers, **own, **origin, "objective": self.plan.objective}
        name = f"trial{number:04d}-{str(candidate.name)[:8]}"
        return Trackers(names, Run((self.folder or Path()) / TRACKED, self.study.study_name, name, settings))

    def _outcome(self, candidate: Candidate, number: int, rung: int, trackers: Trackers) -> dict[str, Any]:
        assert candidate.arch is not None
        started = time.perf_counter()
        measured: dict[str, float] = {}
        figures: dict[str, float] = {}
        measures = self.plan.levels[rung]
        try:
            with self.interrupts.evaluation(self.plan.trial_timeout):
                reporting = next((m for m in measures if m.reports), None)
                for measure in sorted(measures, key=lambda m: m.cost):
                    trial = self._trial(candidate, number, rung, measure, trackers, measure is reporting)
                    with self._kept(trial):
                        measured[measure.name], more = measure(candidate.arch, trial)
                    figures |= more
        except Stopped:
            return {"state": "interrupted", "reason": "it was stopped"}
        except Overtime:
            return late(self.plan) | {"seconds": self.plan.trial_timeout, "trace": traceback.format_exc()[-MAX_TRACE:]}
        except TrialPruned as e:
            return {"state": "pruned", "reason": str(e), "seconds": round(time.perf_counter() - started, 3)}
        except PrunerError:
            raise
        except (Exception, SystemExit) as e:  # a script's sys.exit is no end of the search
            seconds = round(time.perf_counter() - started, 3)
            outcome = {"state": "failed", "reason": _told(e)[:300], "seconds": seconds}
            return outcome | {"trace": traceback.format_exc()[-MAX_TRACE:]}
        values = self.plan.values([measured[m.name] for m in measures])
        seconds = round(time.perf_counter() - started, 3)
        return {"state": "scored", "values": values, "figures": figures, "seconds": seconds}

    def _trial(
        self, candidate: Candidate, number: int, rung: int, measure: Measure, trackers: Trackers, reports: bool
    ) -> ObjectiveTrial:
        """What an objective is given of its trial. Values on the way are those of the first that tells any."""
        trial: FrozenTrial = self.study.get_trials(deepcopy=False)[number]
        noted = reports and (len(self.plan.objectives) == 1 or self.plan.pruner is not None)
        goes_up = any(r.until is not None for r in self.plan.rungs) and measure.call is self.plan.objectives[0].call
        own = str(candidate.name) if goes_up else f"{candidate.name}-{rung}"
        root = self.folder or (Path(self.scratch.name) if self.mirror is not None else None)
        folder = root / TRIAL_FOLDERS / own / measure.name if root is not None else None

        def told(value: float, step: int) -> bool:
            trackers.log({measure.name: value}, step)
            return noted and self.proposals.prunes(trial, value, step)

        return ObjectiveTrial(self.plan.seed, folder, told, candidate.recipe, measure.until)

    @functools.cached_property
    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """Where a worker without a folder has what is kept in shared storage."""
        return tempfile.TemporaryDirectory(prefix="blockforge-")

    def _kept(self, trial: ObjectiveTrial) -> AbstractContextManager[Any]:
        """While a trial is measured that may leave something in its folder."""
        own = trial.own_folder
        if self.mirror is None or own is None:
            return contextlib.nullcontext()
        return self.mirror.kept(own, "/".join([self.study.study_name, *own.parts[-3:]]))


def late(plan: Plan) -> dict[str, Any]:
    """The outcome of an evaluation that took too long."""
    return {"state": "failed", "reason": f"it took longer than --trial-timeout {plan.trial_timeout:g}s"}


def _told(error: BaseException) -> str:
    """What an exception says, also one that cannot say it."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception as e:
        return f"{type(error).__name__}, whose text raises {type(e).__name__}"

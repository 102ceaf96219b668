"""A run of a search: its study opened or gone on with, worked on in this process or in others, its files written."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study

from blockforge.errors import SearchError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.budget import check_budget
from blockforge.search.confirm.control import control_plan, open_control, read_control
from blockforge.search.confirm.entrants import entrants
from blockforge.search.confirm.progress import ConfirmProgress
from blockforge.search.confirm.race import next_trainings
from blockforge.search.confirm.result import read_confirmation
from blockforge.search.confirm.session import open_confirmation, read_trainings
from blockforge.search.objectives.measure import check_remakable, is_remakable
from blockforge.search.report.write import write_results
from blockforge.search.result import SearchResult
from blockforge.search.samplers.registry import (
    check_pruner,
    check_sampler,
    check_shareable,
    is_of_this_process,
)
from blockforge.search.space.load import differences
from blockforge.search.study.attributes import IDENTITY, attributes, check_plugins, stored_config
from blockforge.search.study.config import SearchConfig, WorkersConfig, setting
from blockforge.search.study.config_files import write_config
from blockforge.search.study.folder import LOGS, TRACKED, read_space, write_place, write_space
from blockforge.search.study.history import History
from blockforge.search.study.journal import working_in
from blockforge.search.study.lease import Lease
from blockforge.search.study.place import StudyPlace
from blockforge.search.study.plan import Plan, announce, resolve
from blockforge.search.study.storage import open_study, opened, quiet_optuna, shown_url
from blockforge.search.workers.confirm import confirm
from blockforge.search.workers.devices import check_share, dealt, visible_gpus
from blockforge.search.workers.launcher import WorkerSettings
from blockforge.search.workers.limits import begin
from blockforge.search.workers.mirror import Mirror
from blockforge.search.workers.rehearsal import try_proposals
from blockforge.search.workers.session import Session
from blockforge.search.workers.supervisor import supervise
from blockforge.search.workers.trial_progress import Reporter, control_reporter, reporter
from blockforge.trackers import check_trackers

_RESUME = "nothing that was finished is lost; the same command goes on"


def run(config: SearchConfig, progress: bool | Reporter = False) -> SearchResult:
    """Search as the settings say, over those of the study if there is one.

    Raises: see `blockforge.search.search`.
    """
    with setting("proposals", "sampler"):
        check_sampler(config.proposals.sampler)
    with setting("proposals", "pruner"):
        check_pruner(config.proposals.pruner)
    for what, number, path in (
        ("trials", config.goal.trials, ("goal", "trials")), ("workers", config.workers.number, ("workers", "number")),
    ):  # fmt: skip
        if number < 1:
            raise SearchError(f"{number} {what} are none\n  hint: give 1 or more").about(*path)
    with setting("workers", "gpus_per_worker"):
        check_share(config.workers.gpus_per_worker)
    _check_of_ray(config.workers)
    with setting("study", "storage" if config.study.storage else "out"):
        place = StudyPlace.of(config.study)
        resumes = place.study_exists()
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_optuna())
        if resumes:
            stack.enter_context(working_in(place.folder))
        known = place.attributes() if resumes or place.storage else None
        place.check_whole(known)
        plan = _resolve(config, known if resumes else None)
        with setting("log", "trackers"):
            check_trackers(plan.config.log.trackers, place.folder / TRACKED if place.folder is not None else None)
        if plan.config.goal.checkpoints is not None:
            with setting("goal", "checkpoints"):
                Mirror(plan.config.goal.checkpoints)
        alone = _is_alone(plan, place)
        with setting("budget", "limits"):
            check_budget(plan.space, plan.budget, plan.fit)
        if not resumes:
            try_proposals(plan)
            stack.enter_context(working_in(place.folder))
        if progress:
            announce(plan)
        interrupts = stack.enter_context(EvaluationInterrupts())
        try:
            storage = stack.enter_context(opened(place.where, interrupts.stopped))
            own = _Run(plan, place, storage, reporter(progress), interrupts, progress is not False)
            return own.here() if alone else own.in_processes()
        except OSError as e:  # what an objective raises is kept with its trial: this is the folder
            if place.where is None:
                raise SearchError(f"cannot write: {e.strerror or e}") from e
            where = shown_url(str(place.where))
            raise SearchError(f"cannot write in {where}: {e.strerror or e}\n  hint: {_RESUME}") from e


def _check_of_ray(workers: WorkersConfig) -> None:
    """Raise SearchError for what only a Ray cluster gives."""
    asked = {
        "address": "--address", "cpus_per_worker": "--cpus-per-worker", "resources": "--resource",
        "runtime_env": "--runtime-env",
    }  # fmt: skip
    for key, option in asked.items():
        if workers.launcher != "ray" and getattr(workers, key):
            raise SearchError(f"{option} is for Ray tasks\n  hint: --launcher ray").about("workers", key)


def _resolve(config: SearchConfig, known: dict[str, Any] | None) -> Plan:
    """The plan of a run: what is set now, over what the study keeps."""
    if not known or IDENTITY not in known:  # without one its run died before it began
        return resolve(config)
    check_plugins(known)
    before = stored_config(known)
    _check_same_data(config, before)
    return resolve(config.over(before), earlier=before.space.start)


def _check_same_data(config: SearchConfig, before: SearchConfig) -> None:
    """Raise SearchError where a study that goes on is told to rank by something else."""
    for key, option in (("data", "--data"), ("fidelity", "--fidelity")):
        now, had = getattr(config.goal, key), getattr(before.goal, key)
        if key in config.goal.model_fields_set and now != had:
            text = f"the study ranks with {option} {had}" if had is not None else f"the study ranks without {option}"
            raise SearchError(f"{text}, this run has {now}\n  hint: another --out begins another study")


def _is_alone(plan: Plan, place: StudyPlace) -> bool:
    """Whether this process evaluates all by itself; raises SearchError where others could not take part.

    A single worker has a process of its own where an evaluation may have to be ended with it.
    """
    measures = [*plan.objectives, *plan.rungs]
    workers, proposals = plan.config.workers, plan.config.proposals
    if workers.number > 1 or workers.launcher != "local":
        place.check_shared()
        if workers.launcher == "local":
            with setting("workers", "gpus_per_worker"):
                dealt(workers.number, visible_gpus(), workers.gpus_per_worker)
        check_remakable(measures)
        for key, thing in (("sampler", proposals.sampler), ("pruner", proposals.pruner)):
            with setting("proposals", key):
                check_shareable(thing, key)
        return False
    objects = is_of_this_process(proposals.sampler) or is_of_this_process(proposals.pruner)
    return plan.trial_timeout is None or place.where is None or objects or not all(map(is_remakable, measures))


@dataclass
class _Run:
    """A search that is about to begin."""

    plan: Plan
    place: StudyPlace
    storage: BaseStorage
    reporter: Reporter
    interrupts: EvaluationInterrupts
    shows: bool = False

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.confirming, self._told = ConfirmProgress(self.shows), False
        self.controlling: Reporter | None = None

    def here(self) -> SearchResult:
        """In this process."""
        study = self._open()
        with Lease(study, self.plan.config.workers.lease) as lease:
            session = Session(self.plan, study, lease, self.interrupts, folder=self.place.folder)
            self.reporter.start(self.plan.target, session.records, self.plan.signs)
            try:
                stopped = session.run(self.reporter, self.plan.config.workers.max_idle)
            finally:
                self.reporter.stop()
            with self.confirming:
                stopped = confirm(session, self.confirming, control_reporter(self.shows)) or stopped
        return self._result(session.history, stopped)

    def in_processes(self) -> SearchResult:
        """In processes of their own."""
        study = self._open()
        history = History(study, self.plan.holes, self.plan.signs, len(self.plan.levels))
        self.reporter.start(self.plan.target, history.sync(), self.plan.signs)
        where = self.place.storage or str(Path(self.place.where or "").resolve())
        logs = self.place.folder / LOGS if self.place.folder is not None else None
        settings = WorkerSettings(
            where, self.place.name, self.plan.config.workers, logs, folder=self.place.folder, code=self.plan.code
        )
        confirmation = open_confirmation(self.storage, self.place.name) if self.plan.data is not None else None
        control: Study | None = None
        if confirmation is not None and self.plan.config.confirm.control:
            control = open_control(self.storage, self.place.name, control_plan(self.plan, self.plan.target))
        try:
            with self.confirming:
                stopped = supervise(
                    settings, study, history, self.reporter, self.interrupts,
                    [following for following in (control, confirmation) if following is not None],
                    self._follower(history, control, confirmation),
                )  # fmt: skip
        finally:
            self._search_ended()
            self._control_ended()
        return self._result(history, stopped)

    def _follower(self, history: History, control: Study | None, confirmation: Study | None) -> Callable[[], bool]:
        """What shows how far that is which follows the search, and says whether something of it has ended since."""
        chance = History(control, self.plan.holes, self.plan.signs, len(self.plan.levels)) if control else None
        return lambda: self._follow_control(history, chance) or self._follow(history, confirmation)

    def _search_ended(self) -> None:
        if not self._told:
            self._told = True
            self.reporter.stop()

    def _control_ended(self) -> None:
        if self.controlling is not None:
            self.controlling.stop()

    def _follow_control(self, history: History, chance: History | None) -> bool:
        if chance is None:
            return False
        ended = chance.sync()
        if self.controlling is None and (chance.records or chance.running):
            self._search_ended()
            self.controlling = control_reporter(self.shows)
            self.controlling.start(history.evaluated, ended, self.plan.signs)
        elif self.controlling is not None:
            for record in ended:
                self.controlling.update(record)
        return bool(ended)

    def _follow(self, history: History, confirmation: Study | None) -> bool:
        if confirmation is None or not confirmation.get_trials(deepcopy=False):
            return False
        self._search_ended()
        self._control_ended()
        known = read_trainings(confirmation, self.plan)
        if self.confirming.knows(len(known)):
            return False
        entered = entrants(self.plan, history.records.values(), read_control(self.storage, self.place.name, self.plan))
        _, most = next_trainings(entered, known, self.plan.config.confirm.seeds)
        return self.confirming(len(known), most)

    def _open(self) -> Study:
        folder, plan = self.place.folder, self.plan
        before = read_space(folder)
        differs = differences(before, plan.space) if before else []
        study = open_study(
            self.storage, attributes(plan), differs, name=self.place.name, directions=plan.directions,
            metric_names=plan.metric_names,
        )  # fmt: skip
        begin(study, plan)
        if folder is not None:
            write_space(folder, plan.space)
            write_config(folder, plan.config)
            if self.place.storage:
                write_place(folder, shown_url(self.place.storage), self.place.name)
        return study

    def _result(self, history: History, stopped: str | None) -> SearchResult:
        trials = [r for _, r in sorted(history.records.items())]
        signal = self.interrupts.received if stopped else None
        seconds = time.monotonic() - self.started
        confirmed = read_confirmation(self.plan, trials, self.storage, self.place.name)
        result = SearchResult(self.plan, trials, seconds, stopped, signal, self.place.folder, confirmed)
        if self.place.folder is not None:
            write_results(result, self.place.folder)
        return result

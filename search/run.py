"""The search: propose, check, evaluate, tell; stop, resume, and give back what was found."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study

from blockforge.compiler import Architecture
from blockforge.errors import SearchError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.budget import check_budget
from blockforge.search.objectives.measure import Measure, check_remakable, is_remakable
from blockforge.search.report import files
from blockforge.search.result import SearchResult
from blockforge.search.samplers.sampling import check_sampler, quiet_optuna
from blockforge.search.space.load import differences
from blockforge.search.study.defaults import Given, Overrides, settle
from blockforge.search.study.history import History
from blockforge.search.study.journal import JOURNAL, working_in
from blockforge.search.study.lease import LEASE, Lease
from blockforge.search.study.settings import IDENTITY, Objectives, Plan, announce, read_plan
from blockforge.search.study.storage import (
    STUDY,
    join_study,
    open_study,
    opened,
    read_attributes,
    shown_url,
)
from blockforge.search.workers.launcher import Crew, Launcher
from blockforge.search.workers.session import MAX_IDLE, Session
from blockforge.search.workers.supervisor import run_crew
from blockforge.search.workers.trial_progress import Reporter, reporter
from blockforge.spec import SpecLike, holes
from blockforge.units import Budget, parse_duration

_RESUME = "nothing that was finished is lost; the same command goes on"
Function = Callable[[Architecture], Any]


def search(
    space: SpecLike | None = None,
    *,
    budget: Budget | str | Sequence[str] | None = None,
    trials: int = 64,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    sampler: str | None = None,
    overrides: Overrides = None,
    objective: str | Function | Measure | None = None,
    objectives: Objectives | None = None,
    weights: Sequence[float] | None = None,
    rungs: Objectives | None = None,
    eta: int | None = None,
    start: Sequence[SpecLike] | None = None,
    fit: float | None = None,
    workers: int = 1,
    storage: str | None = None,
    study: str | None = None,
    launcher: Launcher = "local",
    address: str | None = None,
    progress: bool | Reporter = False,
    max_idle: int = MAX_IDLE,
    lease: float = LEASE,
    trial_timeout: float | str | None = None,
) -> SearchResult:
    """Fill the holes of a space, within a budget, so that the score is high.

    Args:
        space: a packaged space by name, or any spec with holes.
        budget: upper limits, `5GFLOPs,30Mparams,200MB,4GB:train,batch=64`; checked before anything is built.
        trials: distinct candidates within the budget to evaluate. Refused and repeated ones come on top.
        seed: makes proposals and scores reproducible, with one worker.
        out: a folder for the study and its results. If it holds a study, that study goes on until `trials` are
            reached in total, and what is not given here is as it was there.
        sampler: `tpe`, `random`, `nsga2`, `evolution` or `brute`.
        overrides: values of the space to replace by path, holes included.
        objective: what to maximise (or minimise, if it says so); see `blockforge.search.objectives.measure`.
        objectives: several of them; without `weights` the search looks for their Pareto front.
        weights: of the objectives in a sum that is maximised; what is to be minimised counts as negative.
        rungs: cheap stand-ins for the first objective, the cheapest first; the best 1/`eta` of each go up.
        start: specs that lie in the space, evaluated first.
        fit: scale the widths of each candidate so that it costs at least this share of the budget.
        workers: processes on this machine, or Ray tasks.
        storage: a database by URL, in place of a journal in `out`; others can join with `blockforge worker`.
        study: the study's name there; default: the name of `out`.
        launcher: `local` or `ray`. address: of the Ray cluster; default: one on this machine.
        progress: show progress on stderr.
        max_idle: proposals in a row that may bring nothing to evaluate before a worker ends.
        lease: seconds without a sign of life after which a worker counts as dead, on whatever machine.
        trial_timeout: what one evaluation may take, in seconds or as `90s`, `5min`, `2h`; one that takes longer is
            kept as failed. One that cannot be cut short (it hangs in C) is ended with its worker.
    Raises:
        SpecError, BudgetError: if the space is wrong, or no candidate fits in the budget.
        SearchError: if there is nothing to search, or `out` holds another search.
    """
    if sampler is not None:
        check_sampler(sampler)
    for what, number in (("trials", trials), ("workers", workers)):
        if number < 1:
            raise SearchError(f"{number} {what} are none\n  hint: give 1 or more")
    if objective is not None and objectives is not None:
        raise SearchError("objective and objectives exclude one another")
    folder = Path(out) if out is not None else None
    place = _place(folder, storage, study)
    resumes = place.study_exists()
    given = Given(
        space, overrides, budget, seed, [objective] if objective is not None else objectives, weights, rungs, eta,
        start, fit, sampler, trials, parse_duration(trial_timeout) if trial_timeout is not None else None,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_optuna())
        if resumes:
            stack.enter_context(working_in(folder))
        known = place.attributes() if resumes or place.storage else None
        place.check_whole(known)
        plan = settle(given, known if resumes else None)
        if workers > 1 or launcher != "local":
            place.check_shared()
            check_remakable([*plan.objectives, *plan.rungs])
        check_budget(plan.space, plan.budget, plan.fit)
        if not resumes:
            stack.enter_context(working_in(folder))
        if progress:
            announce(plan)
        interrupts = stack.enter_context(EvaluationInterrupts())
        try:
            opened_storage = stack.enter_context(opened(place.where, interrupts.stopped))
            run = _Run(plan, place, opened_storage, reporter(progress), max_idle, lease, interrupts)
            alone = workers == 1 and launcher == "local" and not _needs_a_process(plan, place)
            return run.alone() if alone else run.crew(workers, launcher, address)
        except OSError as e:  # what an objective raises is kept with its trial: this is the folder
            raise SearchError(f"cannot write in {folder}: {e.strerror or e}\n  hint: {_RESUME}") from e


def _needs_a_process(plan: Plan, place: _Place) -> bool:
    """Whether a single worker has a process of its own, which can be ended where its evaluation hangs."""
    return (
        plan.trial_timeout is not None
        and place.where is not None
        and all(is_remakable(m) for m in (*plan.objectives, *plan.rungs))
    )


@dataclass(frozen=True)
class _Place:
    """Where a study is: in a storage by URL, in the journal of a folder, or in memory."""

    folder: Path | None
    storage: str | None
    name: str

    @property
    def where(self) -> str | Path | None:
        return self.storage or self.folder

    def attributes(self) -> dict[str, Any] | None:
        return read_attributes(self.where, self.name)

    def study_exists(self) -> bool:
        return self.attributes() is not None if self.storage else files.has_study(self.folder)

    def check_whole(self, attributes: dict[str, Any] | None) -> None:
        """Raise SearchError where the folder holds what a study left, and the study itself is gone."""
        folder = self.folder
        left = [n for n in (files.SPACE, files.TRIALS) if folder is not None and (folder / n).exists()]
        begun = files.has_study(folder) or bool(files.read_place(folder)) or files.TRIALS in left
        if left and begun and IDENTITY not in (attributes or {}):
            where = shown_url(self.storage) if self.storage else f"{folder}/{JOURNAL}"
            text = f"{where} holds no study, but {folder} holds what one has left: {', '.join(left)}"
            raise SearchError(f"{text}\n  hint: bring it back from a copy, or start anew in another folder: --out DIR")

    def check_shared(self) -> None:
        if self.where is None:
            raise SearchError("several workers need a study that all of them see\n  hint: give --out DIR, or --storage")


def _place(folder: Path | None, storage: str | None, study: str | None) -> _Place:
    known = files.read_place(folder)
    storage = storage or known.get("storage")
    name = study or known.get("study") or (folder.name if storage and folder is not None else STUDY)
    return _Place(folder, storage, name)


@dataclass
class _Run:
    """A search that is about to begin."""

    plan: Plan
    place: _Place
    storage: BaseStorage
    reporter: Reporter
    max_idle: int
    lease: float
    interrupts: EvaluationInterrupts

    def __post_init__(self) -> None:
        self.started = time.monotonic()

    def alone(self) -> SearchResult:
        """In this process."""
        study = self._open()
        with Lease(study, self.lease) as lease:
            session = Session(self.plan, study, lease, self.interrupts)
            self.reporter.start(self.plan.target, session.records, self.plan.signs)
            try:
                stopped = session.run(self.reporter, self.max_idle)
            finally:
                self.reporter.stop()
        return self._result(session.history, stopped)

    def crew(self, workers: int, launcher: Launcher, address: str | None) -> SearchResult:
        """In processes of their own."""
        study = self._open()
        history = History(study, holes(self.plan.space), self.plan.signs, len(self.plan.levels))
        self.reporter.start(self.plan.target, history.sync(), self.plan.signs)
        where = self.place.storage or str(Path(self.place.where or "").resolve())
        logs = self.place.folder / files.LOGS if self.place.folder is not None else None
        crew = Crew(where, self.place.name, workers, self.max_idle, logs, self.lease)
        try:
            stopped = run_crew(crew, study, history, self.reporter, self.interrupts, launcher, address)
        finally:
            self.reporter.stop()
        return self._result(history, stopped)

    def _open(self) -> Study:
        folder, plan = self.place.folder, self.plan
        before = files.read_space(folder)
        study = open_study(
            self.storage, plan.identity(), differences(before, plan.space) if before else [],
            name=self.place.name, directions=plan.directions, settings=plan.settings(),
        )  # fmt: skip
        if folder is not None:
            files.write_space(folder, plan.space)
            if self.place.storage:
                place = {"storage": shown_url(self.place.storage), "study": self.place.name}
                files.write_text(folder / files.PLACE, json.dumps(place, indent=1) + "\n")
        return study

    def _result(self, history: History, stopped: str | None) -> SearchResult:
        trials = [r for _, r in sorted(history.records.items())]
        signal = self.interrupts.received if stopped else None
        seconds = time.monotonic() - self.started
        result = SearchResult(self.plan, trials, seconds, stopped, signal, self.place.folder)
        if self.place.folder is not None:
            files.write_results(result, self.place.folder)
        return result


def open_result(where: str | os.PathLike[str], study: str | None = None) -> SearchResult:
    """The result of a study as it stands, from its folder or its storage; nothing is changed.

    Raises: SearchError if there is none.
    """
    text = os.fspath(where)
    folder = Path(text) if "://" not in text else None
    place = _place(folder, None if folder is not None else text, study)
    attrs = place.attributes()
    place.check_whole(attrs)
    if attrs is None:
        hint = "the folder that --out named" if folder is not None else "the name that the study was given: --study"
        raise SearchError(f"there is no study in {shown_url(text)}\n  hint: {hint}")
    with quiet_optuna(), opened(place.where, reading=True) as storage:
        plan = read_plan(attrs, evaluating=False)
        found = join_study(storage, place.name)
        history = History(found, holes(plan.space), plan.signs, len(plan.levels))
        history.sync()
    return SearchResult(plan, [r for _, r in sorted(history.records.items())], folder=folder)

"""The search: propose, check, evaluate, tell; stop, resume, and give back what was found."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge import __version__
from blockforge.compiler import canonical
from blockforge.search import files
from blockforge.search.budget import as_budget, check_budget
from blockforge.search.errors import SearchError
from blockforge.search.interrupts import Interrupts
from blockforge.search.progress import Reporter, make_reporter
from blockforge.search.result import SearchResult
from blockforge.search.sampling import check_sampler, quiet_optuna
from blockforge.search.score import Expressivity, Objective, describe
from blockforge.search.session import MAX_IDLE, Session
from blockforge.search.space import DEFAULT_SPACE, differences, fingerprint, load_space
from blockforge.search.storage import JOURNAL, open_storage, open_study, recover, stored_identity, working_in
from blockforge.spec import Spec, SpecLike, load
from blockforge.units import Budget

_RESUME = "nothing that was finished is lost; the same command goes on"
Overrides = Mapping[str, Any] | list[str] | None


def search(
    space: SpecLike | None = None,
    *,
    budget: Budget | str | None = None,
    trials: int = 64,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    sampler: str = "tpe",
    overrides: Overrides = None,
    objective: Objective | None = None,
    progress: bool | Reporter = False,
    max_idle: int = MAX_IDLE,
) -> SearchResult:
    """Fill the holes of a space, within a budget, so that the score is high.

    Args:
        space: a packaged space by name, or any spec with holes.
        budget: upper limits, `5GFLOPs,30Mparams,200MB`; checked before anything is built.
        trials: distinct candidates within the budget to evaluate. Refused and repeated ones come on top.
        seed: makes proposals and scores reproducible.
        out: a folder for the study, `trials.csv`, `best/` and `pareto.png`. If it holds a study, that study
            goes on until `trials` are reached in total, and what is not given here is as it was there.
        sampler: `tpe` or `random`.
        overrides: values of the space to replace by path, holes included.
        objective: a function from Architecture to a score, larger is better; default: `Expressivity`.
        progress: show progress on stderr.
        max_idle: proposals in a row that may bring nothing to evaluate before the search ends.
    Raises:
        SpecError, BudgetError: if the space is wrong, or no candidate fits in the budget.
        SearchError: if there is nothing to search, or `out` holds another search.
    """
    check_sampler(sampler)
    if trials < 1:
        raise SearchError(f"{trials} trials are none\n  hint: give 1 or more")
    folder = Path(out) if out is not None else None
    resumes = folder is not None and (folder / JOURNAL).exists()
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_optuna())
        if resumes:
            stack.enter_context(working_in(folder))
        plan = _settle(space, overrides, budget, seed, objective, folder if resumes else None)
        check_budget(plan.space, plan.budget)
        if not resumes:
            stack.enter_context(working_in(folder))
        interrupts = stack.enter_context(Interrupts())
        try:
            return _run(plan, folder, trials, sampler, make_reporter(progress), max_idle, interrupts)
        except OSError as e:  # what an objective raises is kept with its trial: this is the folder
            raise SearchError(f"cannot write in {folder}: {e.strerror or e}\n  hint: {_RESUME}") from e


@dataclass(frozen=True)
class _Plan:
    """Everything that scores and refusals depend on."""

    space: Spec
    budget: Budget
    seed: int
    objective: Objective

    def identity(self) -> dict[str, Any]:
        """What must be equal for a study to go on."""
        return {
            "blockforge": f"{__version__}, graph {canonical.VERSION}",
            "space": f"{self.space.name} ({fingerprint(self.space)})",
            "budget": self.budget.limits,
            "seed": self.seed,
            "objective": describe(self.objective),
        }


def _settle(
    space: SpecLike | None,
    overrides: Overrides,
    budget: Budget | str | None,
    seed: int | None,
    objective: Objective | None,
    folder: Path | None,
) -> _Plan:
    """The settings of a run: as given, else as in the study in `folder`, else the defaults."""
    known = stored_identity(folder) or {}
    if seed is None:
        seed = known.get("seed", 0)
    if budget is None:
        budget = Budget(**known.get("budget", {}))
    if space is None and folder is not None and known:
        space = load(folder / files.SPACE)
    found = load_space(DEFAULT_SPACE if space is None else space, overrides)
    return _Plan(found, as_budget(budget), seed, objective or Expressivity(seed=seed))


def _run(
    plan: _Plan,
    folder: Path | None,
    trials: int,
    sampler: str,
    reporter: Reporter,
    max_idle: int,
    interrupts: Interrupts,
) -> SearchResult:
    started = time.monotonic()
    storage, journal = open_storage(folder)
    before = files.read_space(folder)
    study = open_study(storage, plan.identity(), differences(before, plan.space) if before else [])
    recover(study)
    if folder is not None:
        files.write_space(folder, plan.space)
    session = Session(study, journal, plan.space, plan.budget, plan.objective, plan.seed, sampler, interrupts)
    reporter.start(trials, session.records)
    try:
        stopped = session.run(trials, reporter, max_idle)
    finally:
        reporter.stop()
    result = SearchResult(
        plan.space, plan.budget, describe(plan.objective), trials, session.records,
        time.monotonic() - started, stopped, interrupts.received if stopped else None, folder,
    )  # fmt: skip
    if folder is not None:
        files.write_results(result, folder)
    return result

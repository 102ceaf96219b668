"""The search as a function: settings in, a result out; and the result of a study that is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError, SearchError
from blockforge.search.budget import as_budget
from blockforge.search.confirm.result import read_confirmation
from blockforge.search.objectives.measure import Measure
from blockforge.search.result import SearchResult
from blockforge.search.space.around import around as neighbourhood
from blockforge.search.space.fit import SHARE
from blockforge.search.study.attributes import read_plan
from blockforge.search.study.config import Launcher, given
from blockforge.search.study.config_files import ConfigLike, place_in_file, read_config
from blockforge.search.study.history import History
from blockforge.search.study.place import StudyPlace
from blockforge.search.study.storage import join_study, opened, quiet_optuna, shown_url
from blockforge.search.workers.run import run
from blockforge.search.workers.trial_progress import Reporter
from blockforge.spec import SpecLike, load
from blockforge.units import COSTS, Budget

CHEAPER = 0.75
"""The share of a start's cost that something cheaper may have."""
Objective = str | Callable[[Architecture], Any] | Measure


def search(
    space: SpecLike | None = None,
    *,
    around: SpecLike | None = None,
    budget: Budget | str | Sequence[str] | None = None,
    trials: int | None = None,
    seed: int | None = None,
    out: str | os.PathLike[str] | None = None,
    checkpoints: str | None = None,
    data: str | None = None,
    fidelity: str | os.PathLike[str] | None = None,
    sampler: str | BaseSampler | None = None,
    pruner: str | BasePruner | None = None,
    screen: float | str | None = None,
    overrides: Mapping[str, Any] | list[str] | None = None,
    objective: Objective | None = None,
    objectives: Sequence[Objective] | None = None,
    weights: Sequence[float] | None = None,
    rungs: Sequence[Objective] | None = None,
    eta: int | None = None,
    start: Sequence[SpecLike] | None = None,
    fit: float | str | None = None,
    cheaper: str | None = None,
    margin: float | None = None,
    confirm: float | str | None = None,
    confirm_seeds: int | None = None,
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    epochs: int | None = None,
    control: bool | None = None,
    workers: int | None = None,
    storage: str | None = None,
    study: str | None = None,
    launcher: Launcher | None = None,
    address: str | None = None,
    gpus_per_worker: float | None = None,
    cpus_per_worker: float | None = None,
    resources: Mapping[str, float] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    progress: bool | Reporter = False,
    max_idle: int | None = None,
    lease: float | None = None,
    trial_timeout: float | str | None = None,
    time: float | str | None = None,
    gpu_hours: float | None = None,
    log: Sequence[str] | None = None,
    config: ConfigLike | None = None,
) -> SearchResult:
    """Fill the holes of a space, within a budget, so that the score is high.

    What is not given is as `config` says, else as in the study that goes on, else the default.

    Args:
        space: a packaged space by name, or any spec with holes. Default: `hybrid`.
        around: a spec without holes, in place of `space`: its neighbourhood is searched, the spec first. Default of
            `budget` are then its multiply-adds, and of `fit` 0.97: what is found costs the same.
        budget: upper limits, `5GFLOPs,30Mparams,200MB,4GB:train,batch=64`; checked before anything is built.
        data: images to rank candidates by, after some training, and to train the best again by: a source, as for
            `blockforge train`. None: nothing is trained.
        fidelity: a file of `blockforge bench fidelity`, which says how long to train. Default: 160, then 320 steps.
        trials: distinct candidates within the budget to evaluate. Refused and repeated ones come on top. Default: 64.
        seed: makes proposals and scores reproducible, with one worker. Default: 0.
        out: a folder for the study and its results. If it holds a study, that study goes on until `trials` are
            reached in total.
        checkpoints: a URL of shared storage, any that fsspec knows, in which the folders of trainings are kept as well:
            one whose machine is lost goes on elsewhere. The study and its results stay in `out`.
        sampler: `tpe` (the default), `random`, `nsga2`, `evolution`, `brute`; or any sampler of Optuna's, as an object
            or by the name of what makes it: `module:factory`, `file.py:factory`, with `:key=value` behind it. Its
            random numbers come from `seed`. An object serves this process alone.
        pruner: one of Optuna's, in the same ways; it cuts evaluations short, where the objective calls
            `report(value, step)`.
        screen: of so many proposals of the sampler the one is evaluated that a predictor likes best, which learns from
            the networks that were evaluated; "none", the default: every proposal is. Needs scikit-learn.
        overrides: values of the space to replace by path, holes included.
        objective: what to maximise (or minimise, if it says so); see `blockforge.search.objectives.measure`. Default:
            training on `data`, else `capacity`.
        objectives: several of them; without `weights` the search looks for their Pareto front.
        weights: of the objectives in a sum that is maximised; what is to be minimised counts as negative.
        rungs: cheap stand-ins for the first objective, the cheapest first; the best 1/`eta` of each go up.
        start: specs that lie in the space, evaluated first.
        fit: scale the widths of each candidate so that it costs at least this share of the budget; "none": leave them
            as they are. Default: 0.95 where no objective is named.
        cheaper: a cost to be small, `macs`, `params`, `latency` or any other objective to be minimised: what is wanted
            is then the cheapest network that is not worse than the first start. It is an objective beside the accuracy;
            with `around` default of `budget` are three quarters of what the start has of it, and nothing is fitted.
        margin: how many points less it may have, with the whole 95% interval. Default: 0.3.
        confirm: how many of the best are trained again on `data`, from scratch; "none": none. Default: 5.
        confirm_seeds: trainings of each, with fresh seeds. Default: 5; at least 3.
        recipe, epochs: of these trainings; the recipe is that of the ranking too, and its holes, as in
            `lr: {$log: [1e-4, 1e-2]}`, are searched beside those of the space. Default: `micro`, as it says.
        control: evaluate as many random candidates as the search has, alike, and compare the winner with the best of
            them: a search must beat what its cost buys without it. Twice the time. Default: with the best of the random
            candidates that it began with.
        workers: processes on this machine, or Ray tasks. Default: 1.
        storage: a database by URL, in place of a journal in `out`; others can join with `blockforge worker`.
        study: the study's name there; default: the name of `out`.
        launcher: `local` or `ray`. address: of the Ray cluster; default: one on this machine.
        gpus_per_worker: what each worker of several sees: 1, 2, ... GPUs, or 0.5, 0.25, ... of one. Default: one each
            of those that this process sees, in turns where there are fewer.
        cpus_per_worker, resources, runtime_env: what each Ray task asks for beside GPUs, and what Ray makes for it:
            `{"pip": [...], "env_vars": {...}}`. Files of objectives and plugins go with it.
        progress: show progress on stderr.
        max_idle: proposals in a row that may bring nothing to evaluate before a worker ends. Default: 500.
        lease: seconds without a sign of life after which a worker counts as dead, on whatever machine. Default: 60.
        trial_timeout: what one evaluation may take, in seconds or as `90s`, `5min`, `2h`; one that takes longer is
            kept as failed. One that cannot be cut short (it hangs in C) is ended with its worker.
        time: after which no candidate is begun in this run, as `8h`; `trials` then has no end where it is not given.
        gpu_hours: the same for hours of evaluation, of all runs and workers, times `gpus_per_worker`, or 1.
        log: `tensorboard`, `mlflow`, `wandb`: trials are told there as well, a run each, in `out/logs`.
        config: these settings as a file, a mapping, or a `SearchConfig`.
    Raises:
        SpecError, BudgetError: if the space or a setting is wrong, or no candidate fits in the budget.
        SearchError: if there is nothing to search, or `out` holds another search.
    """
    if objective is not None and objectives is not None:
        raise SearchError("objective and objectives exclude one another")
    own_recipe = dict(recipe) if isinstance(recipe, Mapping) else _path(recipe)
    wanted = [objective] if objective is not None else objectives
    if around is not None:
        if space is not None:
            raise SearchError("space and around exclude one another: the neighbourhood of a spec is the space")
        spec = load(around, overrides)
        space, overrides, start = neighbourhood(spec), None, [spec, *(start or ())]
        below = read_config(config)
        cost = cheaper or below.goal.cheaper
        if budget is None and not below.budget.limits:
            budget = _limit_around(compile_spec(spec), cost)
        if fit is None and cost is None and "fit" not in below.budget.model_fields_set:
            fit = SHARE
    own = given(
        space={"source": space, "overrides": overrides or None, "start": _listed(start)},
        budget={"limits": budget if isinstance(budget, str | Budget) else _listed(budget), "fit": fit},
        goal={
            "objectives": _listed(wanted), "cheaper": cheaper, "data": data, "fidelity": _path(fidelity), "eta": eta,
            "checkpoints": checkpoints,
            "weights": _listed(weights), "rungs": _listed(rungs),
            "trials": trials, "trial_timeout": trial_timeout, "time": time, "gpu_hours": gpu_hours,
        },
        confirm={
            "top": confirm, "seeds": confirm_seeds, "recipe": own_recipe, "epochs": epochs, "control": control,
            "margin": margin,
        },
        proposals={"sampler": sampler, "pruner": pruner, "screen": screen, "seed": seed},
        workers={
            "number": workers, "launcher": launcher, "address": address, "gpus_per_worker": gpus_per_worker,
            "cpus_per_worker": cpus_per_worker, "resources": resources, "runtime_env": runtime_env,
            "lease": lease, "max_idle": max_idle,
        },
        log={"trackers": _listed(log)},
        study={"out": _path(out), "storage": storage, "name": study},
    )  # fmt: skip
    below = read_config(config)
    try:
        return run(own.over(below), progress)
    except BlockforgeError as e:
        place_in_file(e, own, below)
        raise


def _limit_around(start: Architecture, cheaper: str | None) -> Budget:
    """What the neighbours of a network may cost: as much, or where something cheaper is wanted three quarters of it."""
    if cheaper not in COSTS:
        return Budget(macs=start.macs)
    return as_budget({cheaper: int(CHEAPER * getattr(start, cheaper))})


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return os.fspath(path) if path is not None else None


def _listed(values: Any) -> Any:
    """A sequence as a list; the settings tell what else is wrong."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str | Mapping) else values


def open_result(where: str | os.PathLike[str], study: str | None = None) -> SearchResult:
    """The result of a study as it stands, from its folder or its storage; nothing is changed.

    Raises: SearchError if there is none.
    """
    text = os.fspath(where)
    in_folder = "://" not in text
    at = {"out": text} if in_folder else {"storage": text}
    place = StudyPlace.of(given(study={**at, "name": study}).study)
    attrs = place.attributes()
    place.check_whole(attrs)
    if attrs is None:
        hint = "the folder that --out named" if in_folder else "the name that the study was given: --study"
        raise SearchError(f"there is no study in {shown_url(text)}\n  hint: {hint}")
    with quiet_optuna(), opened(place.where, reading=True) as storage:
        plan = read_plan(attrs, evaluating=False)
        history = History(join_study(storage, place.name), plan.holes, plan.signs, len(plan.levels))
        history.sync()
        trials = [r for _, r in sorted(history.records.items())]
        confirmed = read_confirmation(plan, trials, storage, place.name)
    return SearchResult(plan, trials, folder=place.folder, confirmed=confirmed)

"""`blockforge search`."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blockforge.cli._output import SPACE_HELP, LeaseOption, LogOption, SetOption, console

if TYPE_CHECKING:
    from blockforge.search.study.config import SearchConfig

RUNS = Path("runs")


class Launcher(str, Enum):  # noqa: UP042
    """What runs the workers."""

    local = "local"
    ray = "ray"


def search(
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help=SPACE_HELP, show_default="hybrid"),
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Search the neighbourhood of a spec at its cost, beginning with it."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="LIMITS", help="Upper limits, as in 5GFLOPs,30Mparams,200MB or 4GB:train,batch=64."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Rank by training on these images, and confirm the best; as in fashion."),
    ] = None,
    fidelity: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="How long to train, as bench fidelity measured it.", show_default="160, 320 steps"
        ),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|none", help="Scale widths so that each candidate costs this share of the budget.",
            show_default="0.95 without --objective",
        ),
    ] = None,
    cheaper: Annotated[
        str | None,
        typer.Option(
            metavar="COST", help="Find the network of the least COST (macs, latency) that is as good as the start."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="By how much less it is still as good.", show_default="0.3"),
    ] = None,
    confirm: Annotated[
        str | None,
        typer.Option(metavar="K|none", help="Train the best K again on --data, from scratch.", show_default="5"),
    ] = None,
    confirm_seeds: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Trainings of each, with fresh seeds.", show_default="5")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Of all trainings on --data.", show_default="micro")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of the trainings that confirm.", show_default="the recipe's"),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Compare with the best of as many random candidates, evaluated alike.")
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Distinct candidates within the budget to evaluate, in total.", show_default="64"
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:KEY=VALUE,...]",
            help="What to rank by; may be repeated: a Pareto front. Or module:function.",
            show_default="training on --data, else capacity",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="W,W,...", help="Rank by the weighted sum of the objectives instead.")
    ] = None,
    rung: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:...]", help="A cheap stand-in for the first objective, or report:step=N of it; repeatable."
        ),
    ] = None,
    eta: Annotated[int | None, typer.Option(min=2, help="The best 1/eta of a rung go up.", show_default="3")] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Who proposes: tpe, random, nsga2, evolution, brute; or module:factory.",
            show_default="tpe",
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FACTORY", help="One of Optuna's, as in optuna.pruners:MedianPruner.", show_default="none"
        ),
    ] = None,
    screen: Annotated[
        str | None,
        typer.Option(
            metavar="N|none", help="Of N proposals evaluate the one that a predictor, learned on the way, likes best.",
            show_default="none",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="SPEC,...", help="Specs that lie in the space, to begin with.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of proposals and scores.", show_default="0")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the study and its results.", show_default="runs/..."
        ),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep trainings in shared storage as well, as in s3://bucket/runs."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the study of a folder.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that evaluate candidates.", show_default="1")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Keep the study in a database: sqlite:///FILE, postgresql+psycopg://, grpc://."
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name in the database.", show_default="that of DIR")
    ] = None,
    launcher: Annotated[Launcher | None, typer.Option(help="What runs the workers.", show_default="local")] = None,
    address: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of the Ray cluster, as in auto.")] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="GPUs that each worker sees, as in 1 or 0.5.", show_default="one each"),
    ] = None,
    cpus_per_worker: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="CPUs that each Ray task asks for.", show_default="1")
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=AMOUNT", help="More that each Ray task asks for, as in tpu=1; may be repeated."),
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML of what Ray makes for its tasks: pip, env_vars.")
    ] = None,
    trial_timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Keep an evaluation as failed that takes longer, as in 90s, 5min, 2h."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Begin no candidate after it, as in 8h; for --trials, or beside."),
    ] = None,
    gpu_hours: Annotated[
        float | None,
        typer.Option(metavar="HOURS", help="The same for hours of evaluation, times the GPUs of a worker (or 1)."),
    ] = None,
    lease: LeaseOption = None,
    log: LogOption = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A YAML file of settings; what the command line says goes before it."),
    ] = None,
    overrides: SetOption = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIDE|HxW", help="Image size that costs are stated for, as in 224 or 192x256."),
    ] = None,
) -> None:  # fmt: skip
    """Search a space for backbones within a budget.

    Without --data candidates are ranked by a size, at equal cost; with it by training, and the best are then trained
    again with fresh seeds beside what the search began with.
    Candidates over the budget are refused before anything is built, and equal networks are evaluated once.
    The folder gets report.html, trials.csv, best/*.yaml (for blockforge build), pareto.png and config.yaml (for
    --config). The same --out goes on where an earlier run ended, however it ended; settings that are not given are then
    the study's own.

    \b
    Examples:
      blockforge search --budget 5GFLOPs
      blockforge search tiny --budget 5MFLOPs --data fashion --workers 2
      blockforge search --budget 2GFLOPs,12Mparams --trials 200 --workers 4 --out runs/small
      blockforge search --budget 5GFLOPs,8GB:train,batch=128,sgd,checkpointing
      blockforge search --resume runs/small --trials 400
      blockforge search --objective expressivity --objective params --sampler nsga2
      blockforge search --objective mine.py:score:steps=100 --workers 4 --trial-timeout 10min --time 8h
      blockforge search --objective train:data=cifar10,epochs=20 --workers 16 --gpus-per-worker 0.5 --out runs/gpus
      blockforge search --sampler optuna.samplers:GPSampler --objective train:data=mnist5k,epochs=5
      blockforge search --around smt_t --out runs/around_smt_t
      blockforge search --around smt_t --data cifar10 --cheaper macs --margin 0.3 --confirm-seeds 10
      blockforge search my_space.yaml --set stages.2.depth=12
      blockforge search --config runs/small/config.yaml --seed 1
    """
    from blockforge.errors import SearchError
    from blockforge.search import search as run
    from blockforge.search.report.summary import first_failure, report
    from blockforge.search.samplers.registry import check_pruner, check_sampler
    from blockforge.search.study.config_files import read_config
    from blockforge.search.study.folder import has_study, read_place
    from blockforge.spec.yaml.loader import load_file

    if resume is not None:
        if out is not None:
            raise typer.BadParameter("give --resume or --out", param_hint="--resume")
        if not has_study(resume) and not read_place(resume):
            raise SearchError(f"there is no study in {resume}\n  hint: blockforge search --out {resume} starts one")
    for name, check, value in (("--sampler", check_sampler, sampler or "tpe"), ("--pruner", check_pruner, pruner)):
        try:
            check(value)
        except SearchError as e:
            raise typer.BadParameter(str(e), param_hint=name) from None
    below = read_config(config)
    named = space or (f"around {around}" if around else None)
    changes = [*(overrides or ()), *([f"input.size={_sides(size)}"] if size is not None else ())]
    result = run(
        space, around=around, budget=budget, data=data, fidelity=fidelity, fit=_number(fit, "--fit"), trials=trials,
        cheaper=cheaper, margin=margin,
        confirm=_number(confirm, "--confirm"), confirm_seeds=confirm_seeds, recipe=recipe, epochs=epochs,
        control=control or None,
        objectives=objective, weights=_weights(weights), rungs=rung, eta=eta, sampler=sampler, pruner=pruner,
        screen=_number(screen, "--screen"),
        start=start.split(",") if start else None, seed=seed,
        out=resume or out or below.study.out or default_folder(named, budget, data, seed, below),
        checkpoints=checkpoints, workers=workers, storage=storage, study=study,
        launcher=launcher.value if launcher else None, address=address,
        gpus_per_worker=gpus_per_worker, cpus_per_worker=cpus_per_worker, resources=_resources(resource),
        runtime_env=load_file(runtime_env).tree if runtime_env is not None else None,
        overrides=changes or None, trial_timeout=trial_timeout, lease=lease,
        time=time, gpu_hours=gpu_hours, log=log,
        config=below, progress=True,
    )  # fmt: skip
    console().print(report(result))
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)
    if result.best is None:
        failure = result.first_failure
        why = first_failure(result, failure) if failure is not None else result.stopped or "nothing was evaluated"
        raise SearchError(f"no candidate has a score: {why[0].lower()}{why[1:]}")


def default_folder(
    space: str | None, budget: str | None, data: str | None, seed: int | None, config: SearchConfig
) -> Path:
    """The folder of a search that names none: the same command finds its study again."""
    source, limits = config.space.source, config.budget.limits
    named = source.get("name", "space") if isinstance(source, dict) else str(source)
    limited = ",".join(map(str, limits)) if isinstance(limits, list) else str(limits)
    number = seed if seed is not None else config.proposals.seed
    on = data or config.goal.data
    parts = [Path(space or named).stem, budget or limited or "any", *([on] if on else []), f"seed{number}"]
    return RUNS / "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)


def _number(text: str | None, option: str) -> float | int | str | None:
    """A number, or none; the settings tell which numbers are right."""
    if text is None or text == "none":
        return text
    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no number; or none", param_hint=option) from None


def _weights(text: str | None) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text is not None else None
    except ValueError:
        raise typer.BadParameter(f"'{text}' are no weights; write 1,0.5", param_hint="--weights") from None


def _resources(texts: list[str] | None) -> dict[str, float] | None:
    """`["tpu=1"]` -> `{"tpu": 1.0}`."""
    amounts = {}
    for text in texts or ():
        name, _, amount = text.partition("=")
        if name.strip() in amounts:
            raise typer.BadParameter(f"'{name.strip()}' is given twice", param_hint="--resource")
        try:
            amounts[name.strip()] = float(amount)
        except ValueError:
            raise typer.BadParameter(f"'{text}' is not NAME=AMOUNT", param_hint="--resource") from None
    return amounts or None


def _sides(size: str) -> str:
    """`224` -> `224`, `192x256` -> `[192, 256]`."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", size.strip())
    if match is None:
        raise typer.BadParameter(f"'{size}' is no image size; write 224 or 192x256", param_hint="--size")
    return match[1] if match[2] is None else f"[{match[1]}, {match[2]}]"

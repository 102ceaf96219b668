"""`blockforge search`."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import SetOption, console

RUNS = Path("runs")


class Sampler(str, Enum):  # noqa: UP042  (typer reads the values of such a class as choices)
    """What proposes candidates."""

    tpe = "tpe"
    random = "random"


def search(
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A packaged space or a YAML file with holes.", show_default="hybrid"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="LIMITS", help="Upper limits, as in 5GFLOPs or 5GFLOPs,30Mparams,200MB."),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Distinct candidates within the budget to evaluate, in total."),
    ] = 64,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Of proposals and scores.", show_default="0")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder of the study and its results.", show_default="runs/..."
        ),
    ] = None,
    sampler: Annotated[Sampler, typer.Option(help="What proposes candidates.")] = Sampler.tpe,
    overrides: SetOption = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIDE|HxW", help="Image size that costs are stated for, as in 224 or 192x256."),
    ] = None,
) -> None:
    """Search a space for backbones within a budget.

    Candidates over the budget are refused before anything is built, and equal networks are evaluated once.
    The folder gets trials.csv, best/*.yaml (for blockforge build) and pareto.png. The same --out goes on
    where an earlier run ended, however it ended; settings that are not given are then the study's own.

    \b
    Examples:
      blockforge search --budget 5GFLOPs
      blockforge search --budget 2GFLOPs,12Mparams --trials 200 --out runs/small
      blockforge search --out runs/small --trials 400
      blockforge search my_space.yaml --set stages.2.depth=12
    """
    from blockforge.search import search as run
    from blockforge.search.report import report

    folder = out if out is not None else default_folder(space, budget, seed)
    changes = [*(overrides or ()), *([f"input.size={_sides(size)}"] if size is not None else ())]
    result = run(
        space, budget=budget, trials=trials, seed=seed, out=folder, sampler=sampler.value,
        overrides=changes or None, progress=True,
    )  # fmt: skip
    console().print(report(result))
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)


def default_folder(space: str | None, budget: str | None, seed: int | None) -> Path:
    """The folder of a search that names none: the same command finds its study again."""
    parts = [Path(space or "hybrid").stem, budget or "any", f"seed{seed or 0}"]
    return RUNS / "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)


def _sides(size: str) -> str:
    """`224` -> `224`, `192x256` -> `[192, 256]`."""
    match = re.fullmatch(r"(\d{1,5})(?:[xX](\d{1,5}))?", size.strip())
    if match is None:
        raise typer.BadParameter(f"'{size}' is no image size; write 224 or 192x256", param_hint="--size")
    return match[1] if match[2] is None else f"[{match[1]}, {match[2]}]"

"""`blockforge train`."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import (
    DataOption,
    JsonOption,
    KeyOption,
    LogOption,
    PrefixOption,
    SetOption,
    SkipOption,
    SpecArgument,
    chosen,
    console,
    print_json,
)

RUNS = Path("runs")


def train(
    context: typer.Context,
    spec: SpecArgument,
    data: DataOption,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder of the run.", show_default="runs/..."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(metavar="RECIPE", help="imagenet-300e, finetune, micro, or a YAML file.")
    ] = "micro",
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="In place of the recipe's.")] = None,
    overrides: SetOption = None,
    recipe_overrides: Annotated[
        list[str] | None,
        typer.Option("--recipe-set", metavar="KEY=VALUE", help="Replace a value of the recipe; may be repeated."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Start from these weights; the classifier may differ.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Start from the model in a folder, as far as its layers are alike."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Learn from a trained network: a run's folder, or a spec with its weights."),
    ] = None,
    teacher_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights of the teacher, where it is a spec.")
    ] = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the initialisation and of all chance.")] = 0,
    log: LogOption = None,
    skip_broken: SkipOption = False,
    json: JsonOption = False,
) -> None:
    """Train a network on labelled images.

    --set changes the spec, --recipe-set the recipe. The same command goes on where an earlier run ended,
    however it ended. The folder gets model.safetensors and spec.yaml (blockforge.load_model reads it),
    best.safetensors, log.csv, curves.png and TensorBoard events.

    \b
    Examples:
      blockforge train my_net.yaml --data digits
      blockforge train smt_t --data imagefolder:imagenet --recipe imagenet-300e --out runs/smt_t
      blockforge train smt_t --data hf:beans --recipe finetune --weights smt_tiny.pth
      blockforge train smt_t --data hf:beans --init runs/smt_t --set stages.2.depth=10
      blockforge train smt_t --data hf:beans --teacher runs/smt_b --recipe-set distill.temperature=4
      blockforge train smt_t --data mnist5k --set input.size=64 --recipe-set lr=5e-4 --epochs 20
      torchrun --nproc_per_node 8 --no-python blockforge train smt_t --data imagefolder:imagenet
    """
    from blockforge.train import fit, open_data
    from blockforge.train.distill import open_teacher
    from blockforge.train.launch import leave

    refuse_swapped_keys(overrides, recipe_overrides)
    folder = out if out is not None else default_folder(spec, data, recipe, seed)
    opened = open_data(data, skip_broken=True, progress=True) if skip_broken else data
    if init is not None and weights is not None:
        raise typer.BadParameter("give --weights or --init", param_hint="--init")
    taught_by = None
    if teacher is not None:
        opened = open_data(opened) if isinstance(opened, str) else opened
        taught_by = open_teacher(teacher, teacher_weights, opened)
    elif teacher_weights is not None:
        raise typer.BadParameter("it says the weights of --teacher SPEC", param_hint="--teacher-weights")
    try:
        result = fit(
            spec, opened, recipe, epochs=epochs, seed=seed, out=folder,
            weights=chosen(weights, key, prefix), init=init, overrides=overrides, recipe_overrides=recipe_overrides,
            teacher=taught_by, progress=True, log=log or (),
        )  # fmt: skip
    except KeyboardInterrupt:
        _say_how_to_go_on(context, f"the run in {folder} was broken off between two checkpoints")
        raise
    main = leave()
    if result.signal is not None:
        if main:
            epochs_done = f"{len(result.history)} epoch{'s' * (len(result.history) != 1)} done"
            _say_how_to_go_on(context, f"the run in {folder} is saved, {epochs_done}")
        raise typer.Exit(128 + result.signal)
    if not main:
        return
    if json:
        print_json({"folder": str(folder), **result.as_dict()})
        return
    ran = f"{len(result.history)} epoch{'s' * (len(result.history) != 1)}"
    text = f"top-1 {result.final:.2f} after {ran}, best {result.best:.2f}, {result.seconds:.1f} s"
    console().print(f"{text}\nwritten to {folder}", soft_wrap=True)


def _say_how_to_go_on(context: typer.Context, what: str) -> None:
    """`what`, and the very command that goes on. Where the folder is not typed, the command finds it again."""
    command = shlex.join(["blockforge", *context.obj])
    print(f"{what}; this goes on with it:\n  {command}", file=sys.stderr)


def default_folder(spec: str, data: str, recipe: str, seed: int) -> Path:
    """The folder of a run that names none: the same command finds it again."""
    parts = [Path(spec).stem, data, Path(recipe).stem, f"seed{seed}"]
    return RUNS / "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_") for part in parts)


def refuse_swapped_keys(overrides: list[str] | None, of_recipe: list[str] | None = None) -> None:
    """Say which option a key of the other one belongs to, before spec or recipe says that it has no such key."""
    from blockforge.spec.model import Spec
    from blockforge.train.recipe import Recipe

    spec, recipe = Spec.model_fields, Recipe.model_fields
    for given, own, other, whose in (
        (overrides, "--set", "--recipe-set", recipe.keys() - spec.keys()),
        (of_recipe, "--recipe-set", "--set", spec.keys() - recipe.keys()),
    ):
        for text in given or ():
            key = text.partition("=")[0].strip().partition(".")[0]
            if key in whose:
                owner = "recipe" if other == "--recipe-set" else "spec"
                raise typer.BadParameter(f"{key} is the {owner}'s: {other} {text}", param_hint=own)

"""`blockforge eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import (
    DataOption,
    JsonOption,
    KeyOption,
    PrefixOption,
    SetOption,
    SkipOption,
    SpecArgument,
    chosen,
    console,
    print_json,
)
from blockforge.files import write_text


def eval(
    spec: SpecArgument,
    data: DataOption,
    weights: Annotated[
        Path, typer.Option(metavar="FILE", help="Weights of a run, or an official checkpoint of the family.")
    ],
    key: KeyOption = None,
    prefix: PrefixOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Whose normalize and crop_pct hold.", show_default="the run's"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images of a forward pass.")] = 256,
    confusion: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the confusion matrix to this CSV file.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="PART", help="test, val or train.", show_default="test, or val if there is none"),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names of the network's classes, one a line; for weights that say none."),
    ] = None,
    overrides: SetOption = None,
    skip_broken: SkipOption = False,
    json: JsonOption = False,
) -> None:
    """Measure a network on the test images: top-1, top-5, loss, images per second.

    The classes of the data are found among the network's by their names: a part of them is enough, in any order.

    \b
    Examples:
      blockforge eval runs/a/spec.yaml --weights runs/a/best.safetensors --data digits
      blockforge eval runs/a/spec.yaml --weights runs/a/best.safetensors --data fashion --split val
      blockforge eval smt_t --weights run.ckpt --key state_dict --prefix net. --data mnist5k
      blockforge eval smt_t --weights smt_tiny.pth --data imagefolder:imagenet --recipe imagenet-300e
      blockforge eval my_net.yaml --weights w.safetensors --data npz:x.npz --confusion confusion.csv --json
    """
    from blockforge.train import evaluate, open_data
    from blockforge.train.launch import leave

    opened = open_data(data, skip_broken=skip_broken, progress=True, least=1)
    evaluation = evaluate(
        spec,
        opened,
        weights=chosen(weights, key, prefix),
        overrides=overrides,
        batch_size=batch_size,
        recipe=recipe,
        class_map=class_map,
        split=split,
    )
    if not leave():
        return
    if confusion is not None:
        write_text(confusion, evaluation.confusion_csv())
    if json:
        print_json(evaluation.as_dict())
        return
    figures = f"top-1 {evaluation.top1:.2f}, top-5 {evaluation.top5:.2f}, loss {evaluation.loss:.4f}"
    on = f"{evaluation.images} images of {split or opened.last_word}"
    console().print(f"{figures} on {on}, {evaluation.images_per_second:.0f} images/s")
    if confusion is not None:
        console().print(f"written to {confusion}", soft_wrap=True)

"""`blockforge swap`."""

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
    SpecArgument,
    chosen,
    console,
    print_json,
)


def swap(
    spec: SpecArgument,
    data: DataOption,
    weights: Annotated[Path, typer.Option(metavar="FILE", help="Weights of the trained network.")],
    budget: Annotated[
        list[str],
        typer.Option(metavar="BUDGET", help="3GFLOPs,20Mparams; 60% of its MACs; 100%..30% for a family. Repeatable."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the scores and the networks are written.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, metavar="N", help="Validation images to score by.")] = 512,
    alternatives: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A page of blocks that may stand in for branches too.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Training steps of each of them.")] = 80,
    score_steps: Annotated[
        int, typer.Option(min=0, metavar="N", help="Training steps of thinner branches before they are scored.")
    ] = 0,
    finetune: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="Train each on, taught by the network: 20% of its epochs, or 3 epochs."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Of that.", show_default="the network's own, half its lr")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Train what the report compares with too, also from scratch. Costly.")
    ] = False,
    workers: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Processes that score; each sees a GPU of its own, if there are any."),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it costs and the smallest network; write nothing.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Which images, and of trainings.")] = 0,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a trained network to budgets: thinner branches and fewer of them, with its weights.

    Each thinner form of a branch, and nothing in its place, is scored alone by how far the network's answers move. The
    best combination for a budget is found exactly, and is an ordinary spec with a file of weights. A run that was
    stopped goes on with the same command.

    \b
    Examples:
      blockforge swap runs/a/spec.yaml --weights runs/a/best.safetensors --data fashion --budget 60% --out runs/b
      blockforge swap runs/a/spec.yaml --weights runs/a/best.safetensors --data fashion --budget 100%..30% --out runs/b
      blockforge swap net.yaml --weights net.safetensors --data imagefolder:DIR --budget 3GFLOPs,20ms@cpu --out runs/b
      blockforge swap runs/a/spec.yaml --weights runs/a/best.safetensors --data fashion --budget 60% --finetune 20%
      blockforge swap net.yaml --weights net.safetensors --data fashion --budget 60% --alternatives b.yaml --out r/b
    """
    from blockforge.swapping.run import rehearsed
    from blockforge.swapping.run import swap as run

    if dry_run:
        rehearsal = rehearsed(
            spec, data, weights=chosen(weights, key, prefix), overrides=overrides, images=images,
            alternatives=alternatives, steps=steps, finetune=finetune, recipe=recipe, seed=seed,
        )  # fmt: skip
        print_json(rehearsal.as_dict()) if json else console().print(str(rehearsal))
        return
    result = run(
        spec,
        data,
        budget,
        weights=chosen(weights, key, prefix),
        overrides=overrides,
        images=images,
        alternatives=alternatives,
        steps=steps,
        score_steps=score_steps,
        finetune=finetune,
        recipe=recipe,
        controls=controls,
        workers=workers,
        seed=seed,
        out=out,
        progress=not json,
    )
    if json:
        print_json({"top1": result.own.top1, "networks": result.rows()})
        return
    from blockforge.swapping.result import text_table, top1_text
    from blockforge.units import format_count

    screen = console()
    parent, number = result.parent.arch, len(result.alternatives)
    macs = format_count(parent.macs)
    screen.print(f"{parent.name}, {macs} MACs: {number} alternatives, top-1 {top1_text(result.own.top1)}")
    screen.print(text_table(result.rows()))
    if out is not None:
        last = out / result.answers[-1].folder
        screen.print(f"written to {out}", soft_wrap=True)
        again = f"blockforge train {last / 'spec.yaml'} --data {data} --weights {last / 'model.safetensors'}"
        screen.print(f"Train one further: {again}", soft_wrap=True)

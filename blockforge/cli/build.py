"""`blockforge build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import (
    BackendOption,
    DeployOption,
    InitSeedOption,
    JsonOption,
    KeyOption,
    PrefixOption,
    SetOption,
    SpecArgument,
    WeightsOption,
    chosen,
    console,
    print_json,
)
from blockforge.errors import OutputError


def build(
    spec: SpecArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the model to this folder.")
    ] = None,
    overrides: SetOption = None,
    weights: WeightsOption = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    backend: BackendOption = "numba",
    batch: Annotated[int, typer.Option(min=1, help="Images of the training step whose memory is told.")] = 64,
    optimizer: Annotated[
        str, typer.Option(metavar="NAME", help="Its optimizer: adamw, sgd (with momentum) or plain_sgd.")
    ] = "adamw",
    seed: InitSeedOption = None,
    deploy: DeployOption = False,
    json: JsonOption = False,
) -> None:
    """Build a model, run it once as proof, and write it to a folder.

    The folder holds spec.yaml, graph.json, model.safetensors and versions.json; blockforge.load_model
    reads it.

    \b
    Examples:
      blockforge build smt_b
      blockforge build smt_b --set stages.2.depth=12 --seed 0 -o runs/small
      blockforge build smt_b --weights smt_base.pth
      blockforge build smt_b --batch 128 --optimizer sgd
      blockforge build repvgg_a0 --weights repvgg.pth --deploy -o runs/deployed
    """
    import blockforge as bf
    from blockforge.compiler.costs.training import check_optimizer, in_words
    from blockforge.kernels.costs import CostError
    from blockforge.measure.forward import prove

    if output is not None and output.exists() and not output.is_dir():
        raise OutputError.to(output, "it is not a folder")
    arch = bf.compile(spec, overrides, backend=backend)
    out = console()
    check_optimizer(optimizer)
    try:
        training = [arch.training_memory(batch, optimizer, checkpointing) for checkpointing in (False, True)]
        told = in_words(training)
    except CostError as e:  # a block of somebody's: the model can be built all the same
        training, told = [], str(e)
    if not json:
        out.print((arch.deployed if deploy else arch).summary(layers=False))
        out.print(told)
    model = bf.build(arch, weights=chosen(weights, key, prefix), seed=seed)
    model = bf.deploy(model) if deploy else model
    proof = prove(model)
    if output is not None:
        bf.save_model(model, output)
    if json:
        built = model.arch
        totals = {"params": built.params, "macs": built.macs, "activation_bytes": built.activation_bytes}
        print_json(
            {
                "name": arch.name,
                "hash": arch.hash,
                "form": built.form,
                **totals,
                "backend": arch.backend,
                "training": [memory.as_dict() for memory in training],
                "proof": proof.as_dict(),
                "folder": output and str(output),
            }
        )
        return
    out.print(str(proof))
    if output is not None:
        out.print(f"written to {output}", soft_wrap=True)

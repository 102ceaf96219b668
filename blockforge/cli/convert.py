"""`blockforge convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import JsonOption, KeyOption, PrefixOption, SetOption, print_json


def convert(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint in its family's official layout.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.safetensors", help="Where to write.")],
    family: Annotated[str | None, typer.Option(help="Its family, as in 'smt'; by default found by its keys.")] = None,
    spec: Annotated[
        str | None, typer.Option(metavar="SPEC", help="What it is the weights of; by default the variant that it fits.")
    ] = None,
    key: KeyOption = None,
    prefix: PrefixOption = None,
    overrides: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Turn an official checkpoint into a safetensors file that `--weights` and `bf.build` read.

    The checkpoint may hold tensors and plain values only; one that wants to run code is refused.

    \b
    Examples:
      blockforge convert smt_tiny.pth --family smt -o smt_t.safetensors
      blockforge convert fine_tuned.pth --spec vssd_tiny --set num_classes=100 -o out.safetensors
    """
    from blockforge.weights.conversion import convert_file
    from blockforge.weights.files import Weights

    arch = convert_file(Weights(checkpoint, key, prefix), output, family=family, spec=spec, overrides=overrides)
    if json:
        print_json({"spec": arch.name, "hash": arch.hash, "params": arch.params, "file": str(output)})
    else:
        print(f"{checkpoint} holds {arch.name} ({arch.params:,} parameters)")
        print(f"wrote {output}; use it: blockforge build {spec or arch.name} --weights {output}")

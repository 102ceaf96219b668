"""`blockforge show`."""

from __future__ import annotations

from typing import Annotated

import typer

from blockforge.cli._output import BackendOption, DeployOption, JsonOption, SetOption, SpecArgument, console


def show(
    spec: SpecArgument,
    layers: Annotated[bool, typer.Option(help="With a row for every layer.")] = True,
    parts: Annotated[bool, typer.Option("--parts", help="With the parts of composed blocks.")] = False,
    deploy: DeployOption = False,
    overrides: SetOption = None,
    backend: BackendOption = "numba",
    json: JsonOption = False,
) -> None:
    """Show what a network consists of and costs, without building it.

    \b
    Examples:
      blockforge show smt_b
      blockforge show smt_b --no-layers --set input.size=384
      blockforge show my_net.yaml --parts
      blockforge show sparx_mamba_t --backend torch
      blockforge show repvgg_a0 --deploy
      blockforge show my_net.yaml --json
    """
    import blockforge as bf

    arch = bf.compile(spec, overrides, backend=backend)
    arch = arch.deployed if deploy else arch
    if json:
        print(arch.to_json(indent=1))
    else:
        console().print(arch.summary(layers, parts))

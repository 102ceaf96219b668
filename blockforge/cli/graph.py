"""`blockforge graph`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import SetOption, SpecArgument
from blockforge.files import write_atomically


class Engine(StrEnum):
    """What draws."""

    auto = "auto"
    dot = "dot"
    builtin = "builtin"


def graph(
    spec: SpecArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write; its ending decides: svg, png, dot, mmd, json.",
        ),
    ],
    overrides: SetOption = None,
    engine: Annotated[Engine, typer.Option(help="Draws svg; auto: dot where it is installed.")] = Engine.auto,
) -> None:
    """Draw a network, or write its graph.

    png needs the program dot of graphviz. svg is drawn by dot where it is installed, else by blockforge
    itself. dot, mmd (Mermaid) and json are text.

    \b
    Examples:
      blockforge graph smt_b -o smt_b.svg
      blockforge graph smt_b -o smt_b.svg --engine builtin
      blockforge graph my_net.yaml --set stages.2.depth=8 -o my_net.png
    """
    import blockforge as bf
    from blockforge.draw.picture import writer

    write = writer(output.suffix, engine.value)
    arch = bf.compile(spec, overrides)
    write_atomically(output, lambda file: write(arch, file))
    print(f"written to {output}")

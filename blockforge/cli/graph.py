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

    builtin = "builtin"
    dot = "dot"


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
    parts: Annotated[
        bool, typer.Option("--parts", help="Open composed blocks: the first of each kind is drawn as its parts.")
    ] = False,
    patterns: Annotated[
        list[str] | None,
        typer.Option("--open", metavar="PATTERN", help="Open blocks of this name or at this place; may be repeated."),
    ] = None,
    engine: Annotated[Engine, typer.Option(help="Draws svg.")] = Engine.builtin,
) -> None:
    """Draw a network, or write its graph.

    In a browser, a composed block of an svg opens into its parts where it is pressed; --parts and --open draw them
    opened, in every format but json. png needs the program dot of graphviz; dot, mmd (Mermaid) and json are text.

    \b
    Examples:
      blockforge graph smt_b -o smt_b.svg
      blockforge graph repvit_m0_9 --parts -o repvit.svg
      blockforge graph repvit_m0_9 --open se --open "stages.0.layers.0.*" -o repvit.mmd
      blockforge graph my_net.yaml --set stages.2.depth=8 -o my_net.png
    """
    import blockforge as bf
    from blockforge.draw.picture import writer

    write = writer(output.suffix, engine.value, patterns or (), parts)
    arch = bf.compile(spec, overrides)
    write_atomically(output, lambda file: write(arch, file))
    print(f"written to {output}")

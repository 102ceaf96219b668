"""`blockforge expand`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import SetOption, SpecArgument
from blockforge.files import write_atomically


def expand(
    spec: SpecArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; by default it is printed.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Print a spec with everything written out where it stands.

    What it extends is merged, files of definitions are in it, names, expressions and layer patterns are replaced by
    what they stand for. It is the same network, with the same hash.

    \b
    Examples:
      blockforge expand my_net.yaml
      blockforge expand smt_b --set stages.2.depth=12 -o smt_b_12.yaml
    """
    import blockforge as bf

    text = bf.expand(spec, overrides)
    if output is None:
        print(text, end="")
        return
    write_atomically(output, lambda path: path.write_text(text, encoding="utf-8"))
    print(f"written to {output}")

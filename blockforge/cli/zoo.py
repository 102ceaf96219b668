"""`blockforge zoo`."""

from __future__ import annotations

from typing import Annotated

import typer

from blockforge.cli._output import JsonOption, console, print_json


def zoo(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, as in 'smt*'.")] = "*",
    json: JsonOption = False,
) -> None:
    """List the specs that come with blockforge.

    Each with what it costs, and what its paper reports.

    \b
    Examples:
      blockforge zoo
      blockforge zoo 'smt*'
    """
    import blockforge as bf
    from blockforge.compiler.zoo import compiled_zoo
    from blockforge.draw.summary import overview, overview_table

    known = compiled_zoo(pattern)
    rows = [overview(arch) for arch in known.values()]
    if json:
        print_json(rows)
    elif rows:
        console().print(overview_table(rows))
    elif not bf.list_specs(pattern):
        print(f"no spec of the zoo matches '{pattern}'; there are: {', '.join(bf.list_specs())}")
    if len(rows) < len(bf.list_specs(pattern)):
        raise typer.Exit(1)

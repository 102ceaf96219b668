"""`blockforge schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.files import write_text


def schema(
    file: Annotated[
        str | None,
        typer.Argument(metavar="SPEC", help="A spec, or a file of definitions, whose definitions it is to know."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to this file.")
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors.

    It holds every registered block, and of a spec that is named the definitions with their parameters. Write it
    beside your specs; a first line in them has editors complete and check them:

    \b
      # yaml-language-server: $schema=schema.json

    \b
    Examples:
      blockforge schema -o schema.json
      blockforge schema my_net.yaml -o my_net.schema.json
      blockforge --plugin my_blocks.py schema -o schema.json
    """
    from blockforge.schema import schema_text
    from blockforge.spec.load import load_either

    text = schema_text(None if file is None else load_either(file))
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
        print(f"written to {output}")

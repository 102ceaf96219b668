"""`blockforge schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.files import write_text


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to this file.")
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for editors.

    It holds every registered block. A spec names it in its first line, so that editors complete and check:
    # yaml-language-server: $schema=schema.json

    \b
    Examples:
      blockforge schema -o schema.json
      blockforge --plugin my_blocks.py schema -o schema.json
    """
    from blockforge.schema import schema_text

    if output is None:
        print(schema_text(), end="")
    else:
        write_text(output, schema_text())
        print(f"written to {output}")

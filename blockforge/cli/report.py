"""`blockforge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import console


def report(
    source: Annotated[str, typer.Argument(metavar="DIR|URL", help="The folder of a search, or the storage it is in.")],
    study: Annotated[str | None, typer.Option(metavar="NAME", help="The study's name in a database.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where to write the files.", show_default="DIR"),
    ] = None,
) -> None:
    """Show a search as it stands, also while it runs, and write report.html, trials.csv and best/*.yaml.

    \b
    Examples:
      blockforge report runs/small
      blockforge report postgresql+psycopg://user@host/db --study small --out small
    """
    import dataclasses

    from blockforge.files import make_folder
    from blockforge.search import open_result
    from blockforge.search.files import write_results
    from blockforge.search.report import report as rendered

    result = open_result(source, study)
    folder = out if out is not None else result.folder
    if folder is not None:
        result = dataclasses.replace(result, folder=folder)
        make_folder(folder)
        write_results(result, folder)
    console().print(rendered(result))

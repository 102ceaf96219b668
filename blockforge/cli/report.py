"""`blockforge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import STUDY_HELP, console


def report(
    source: Annotated[str, typer.Argument(metavar="DIR|URL", help="The folder of a search, or the storage it is in.")],
    study: Annotated[str | None, typer.Option(metavar="NAME", help=STUDY_HELP)] = None,
    salvage: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Copy what can be read of a damaged journal into a new folder first."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Where to write the files.", show_default="DIR"),
    ] = None,
) -> None:
    """Show a search as it stands, also while it runs, and write report.html, trials.csv and best/*.yaml.

    The study itself is only read, and no code that it names is imported.

    \b
    Examples:
      blockforge report runs/small
      blockforge report runs/damaged --salvage runs/mended
      blockforge report postgresql+psycopg://user@host/db --study small --out small
    """
    import dataclasses

    from blockforge.files import make_folder
    from blockforge.search import open_result
    from blockforge.search.report.summary import report as rendered
    from blockforge.search.report.write import write_results

    if salvage is not None:
        from blockforge.search.study.salvage import salvage as copied

        print(f"{copied(Path(source), salvage)}\n  go on: blockforge search --resume {salvage}")
        source = str(salvage)
    result = open_result(source, study)
    folder = out if out is not None else result.folder
    if folder is not None:
        result = dataclasses.replace(result, folder=folder)
        make_folder(folder)
        write_results(result, folder)
    console().print(rendered(result))

"""`blockforge worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli._output import STUDY_HELP, LeaseOption


def worker(
    storage: Annotated[
        str, typer.Option(metavar="URL|DIR", help="Where the study is: a database, or the folder of a search.")
    ],
    study: Annotated[str, typer.Option(metavar="NAME", help=STUDY_HELP)] = "search",
    lease: LeaseOption = None,
) -> None:
    """Help with a search: evaluate candidates of its study until it has as many as it wants.

    The space, the budget and all other settings come from the study. Any number of workers may join and leave; the
    candidate of one that dies is tried again by another.

    \b
    Examples:
      blockforge worker --storage postgresql+psycopg://user@host/db --study small
      blockforge worker --storage runs/small
    """
    from rich.console import Console

    from blockforge.errors import SearchError
    from blockforge.search.study.config import LEASE
    from blockforge.search.study.folder import read_place
    from blockforge.search.workers.trial_progress import reporter
    from blockforge.search.workers.worker import work

    if "://" not in storage and not Path(storage).exists():
        raise SearchError(f"there is no study in {storage}\n  hint: blockforge search --out {storage} starts one")
    place = read_place(Path(storage)) if "://" not in storage else {}
    known = place.get("storage", storage), place.get("study", study)
    reason, received = work(
        *known, reporter=reporter(True, Console(stderr=True)), lease=lease if lease is not None else LEASE
    )
    if reason is not None:
        print(f"ended early: {reason}")
    if received is not None:
        raise typer.Exit(128 + received)

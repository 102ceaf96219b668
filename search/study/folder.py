"""The folder of a study: what its files are called, and those of them that a search reads again."""

from __future__ import annotations

import json
from pathlib import Path

from blockforge.errors import BlockforgeError
from blockforge.files import write_text
from blockforge.saving import spec_text
from blockforge.search.study.journal import JOURNAL
from blockforge.spec import Spec, load

SPACE, TRIALS, BEST, PLOT, REPORT = "space.yaml", "trials.csv", "best", "pareto.png", "report.html"
FAILURES, CONFIG = "failures.txt", "config.yaml"
PLACE, LOGS, TRIAL_FOLDERS, TRACKED = "study.json", "workers", "trials", "logs"


def has_study(folder: Path | None) -> bool:
    """Whether a folder holds a journal."""
    return folder is not None and (folder / JOURNAL).exists()


def read_place(folder: Path | None) -> dict[str, str]:
    """Where the study of a folder is, if it is in a database."""
    if folder is None or not (folder / PLACE).is_file():
        return {}
    try:
        return dict(json.loads((folder / PLACE).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return {}


def write_place(folder: Path, storage: str, study: str) -> None:
    """Say in a folder in which database its study is."""
    write_text(folder / PLACE, json.dumps({"storage": storage, "study": study}, indent=1) + "\n")


def write_space(folder: Path, space: Spec) -> None:
    """Keep the space beside its study, for people to read."""
    write_text(folder / SPACE, spec_text(space))


def read_space(folder: Path | None) -> Spec | None:
    """The space that the folder's study was started with, if it can be read."""
    if folder is None or not (folder / SPACE).exists():
        return None
    try:
        return load(folder / SPACE)
    except BlockforgeError:
        return None

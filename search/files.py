"""What a search leaves in its folder. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from blockforge.errors import BlockforgeError
from blockforge.saving import write_atomically
from blockforge.search.records import COSTS, TrialRecord
from blockforge.search.result import SearchResult
from blockforge.spec import Spec, holes, load, to_yaml
from blockforge.units import format_count

SPACE, TRIALS, BEST, PLOT = "space.yaml", "trials.csv", "best", "pareto.png"
TOP = 5
_OURS = re.compile(r"(rank|pareto)\d+_.*\.yaml")
_COLUMNS = ("number", "state", "score", *COSTS, "hash", "duplicate_of", "seconds", "reason")


def write_space(folder: Path, space: Spec) -> None:
    """Keep the space beside its study, so that the folder can be resumed on its own."""
    _write(folder / SPACE, to_yaml(space, header=False))


def read_space(folder: Path | None) -> Spec | None:
    """The space that the folder's study was started with, if it can be read."""
    if folder is None or not (folder / SPACE).exists():
        return None
    try:
        return load(folder / SPACE)
    except BlockforgeError:
        return None


def write_results(result: SearchResult, folder: Path) -> None:
    """Write `trials.csv`, `best/*.yaml` and `pareto.png`."""
    from blockforge.search.plot import plot

    _write(folder / TRIALS, trials_csv(result))
    (folder / BEST).mkdir(exist_ok=True)
    names = best_files(result)
    by_number = {t.number: t for t in result.trials}
    for number, name in names.items():
        _write(folder / BEST / name, to_yaml(result.spec(by_number[number]), header=False))
    for old in (folder / BEST).iterdir():
        if _OURS.fullmatch(old.name) and old.name not in names.values():
            old.unlink()
    if result.best is not None:
        write_atomically(folder / PLOT, lambda file: plot(result, file))


def best_files(result: SearchResult) -> dict[int, str]:
    """Trial number -> the name of its file in `best/`: the first by score, then the rest of the front."""
    top, front = result.ranked[:TOP], result.pareto
    names = {t.number: f"rank{i}_{_label(t)}.yaml" for i, t in enumerate(top, 1)}
    for i, trial in enumerate(front, 1):
        names.setdefault(trial.number, f"pareto{i}_{_label(trial)}.yaml")
    return names


def trials_csv(result: SearchResult) -> str:
    """All trials, one a row, with a column for each hole; empty where a candidate has no such hole."""
    names = list(holes(result.space))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_COLUMNS, *names))
    for trial in result.trials:
        own = [getattr(trial, column) for column in _COLUMNS]
        writer.writerow(own + [trial.holes.get(name) for name in names])
    return text.getvalue()


def _label(trial: TrialRecord) -> str:
    return f"score{trial.score:.2f}_{format_count(trial.macs or 0)}MACs_{(trial.hash or '')[:8]}"


def _write(path: Path, text: str) -> None:
    write: Callable[[Path], object] = lambda file: file.write_text(text, encoding="utf-8")  # noqa: E731
    write_atomically(path, write)  # type: ignore[arg-type]

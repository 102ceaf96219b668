"""What a search leaves in its folder. Every file is written whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockforge.console.csv_text import lines_csv
from blockforge.figures import write_figure
from blockforge.files import make_folder, write_text
from blockforge.saving import spec_text
from blockforge.search.objectives.costs import COSTS
from blockforge.search.result import SearchResult
from blockforge.search.study.folder import BEST, FAILURES, PLOT, REPORT, TRIALS
from blockforge.search.study.records import TrialRecord
from blockforge.spec import holes
from blockforge.units import TRAINING, format_count

TOP = 5
_OURS = re.compile(r"(rank|pareto)\d+_.*\.yaml")
_BEFORE = ("number", "state")
_AFTER = ("rung", *COSTS, "hash", "start", "duplicate_of", "retry_of", "promoted_from", "seconds", "worker", "reason")


def write_results(result: SearchResult, folder: Path) -> None:
    """Write `trials.csv`, `best/*.yaml`, `pareto.png` and `report.html`; `failures.txt` where trials failed."""
    from blockforge.search.report.html import page
    from blockforge.search.report.plot import plot

    write_text(folder / TRIALS, trials_csv(result))
    if failed := [t for t in result.trials if t.state == "failed"]:
        write_text(folder / FAILURES, "\n".join(_failure(t) for t in failed))
    make_folder(folder / BEST)
    names = best_files(result)
    by_number = {t.number: t for t in result.trials}
    for number, name in names.items():
        write_text(folder / BEST / name, spec_text(result.spec(by_number[number])))
    for old in (folder / BEST).iterdir():
        if _OURS.fullmatch(old.name) and old.name not in names.values():
            old.unlink()
    if result.best is not None:
        write_figure(folder / PLOT, plot(result))
    write_text(folder / REPORT, page(result))


def best_files(result: SearchResult) -> dict[int, str]:
    """Trial number -> the name of its file in `best/`: the first by score, then the rest of the front."""
    top, front = result.ranked[:TOP], result.pareto
    names = {t.number: f"rank{i}_{_label(t)}.yaml" for i, t in enumerate(top, 1)}
    for i, trial in enumerate(front, 1):
        names.setdefault(trial.number, f"pareto{i}_{_label(trial)}.yaml")
    return names


def rows(result: SearchResult) -> Iterator[list[Any]]:
    """The header, then a row a trial, with a column for each figure and hole; None where a trial has none."""
    names = list(holes(result.space))
    values = result.plan.value_names
    figures = [f for f in dict.fromkeys(f for t in result.trials for f in t.figures) if f not in values]
    after = (TRAINING, *_AFTER) if result.budget.training_bytes is not None else _AFTER
    yield [*_BEFORE, *values, *figures, *after, *names]
    for trial in result.trials:
        yield [
            *(getattr(trial, column) for column in _BEFORE),
            *(trial.values or [None] * len(values)),
            *(trial.figures.get(name) for name in figures),
            *(getattr(trial, column) for column in after),
            *(trial.widths.get(name, trial.holes.get(name)) for name in names),
        ]


def trials_csv(result: SearchResult) -> str:
    """All trials as comma-separated values."""
    return lines_csv(rows(result))


def _failure(trial: TrialRecord) -> str:
    return f"trial {trial.number} ({trial.hash}): {trial.reason}\n{trial.trace or ''}"


def _label(trial: TrialRecord) -> str:
    score = f"score{trial.score:.2f}_" if trial.score is not None else ""
    return f"{score}{format_count(trial.macs or 0)}MACs_{(trial.hash or '')[:8]}"

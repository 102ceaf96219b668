"""What the files hold that a search leaves in its folder: rows of trials, names of the best."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from blockforge.console.csv_text import lines_csv
from blockforge.search.objectives.costs import COSTS
from blockforge.search.study.records import TrialRecord
from blockforge.units import TRAINING, format_count

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

TOP = 5
OURS = re.compile(r"(rank|pareto)\d+_.*\.(yaml|safetensors)")
_BEFORE = ("number", "state")
_AFTER = ("rung", *COSTS, "hash", "start", "duplicate_of", "retry_of", "promoted_from", "seconds", "worker", "reason")


def best_files(result: SearchResult) -> dict[int, str]:
    """Trial number -> the name of its file in `best/`: the first by score, then the rest of the front."""
    top, front = result.ranked[:TOP], result.pareto
    names = {t.number: f"rank{i}_{_label(t)}.yaml" for i, t in enumerate(top, 1)}
    for i, trial in enumerate(front, 1):
        names.setdefault(trial.number, f"pareto{i}_{_label(trial)}.yaml")
    return names


def recipe_file(spec: str) -> str:
    """The name of the recipe beside a spec in `best/`."""
    return spec.removesuffix(".yaml") + "_recipe.yaml"


def rows(result: SearchResult) -> Iterator[list[Any]]:
    """The header, then a row a trial, with a column for each figure and hole; None where a trial has none."""
    names = list(result.plan.holes)
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


def failure_text(trial: TrialRecord) -> str:
    return f"trial {trial.number} ({trial.hash}): {trial.reason}\n{trial.trace or ''}"


def _label(trial: TrialRecord) -> str:
    score = f"score{trial.score:.2f}_" if trial.score is not None else ""
    return f"{score}{format_count(trial.macs or 0)}MACs_{(trial.hash or '')[:8]}"

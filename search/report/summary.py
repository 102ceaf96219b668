"""What a search prints at its end: the best candidates, how they differ, how much of the score is size."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from blockforge.console.prose import Prose, copied
from blockforge.console.text_table import File, Label, Number, TextTable, Words
from blockforge.search.objectives.correlation import CAPACITY, RANK_SUM
from blockforge.search.report.confirmed import confirmed_parts
from blockforge.search.report.files import TOP, best_files, recipe_file
from blockforge.search.report.screened import screened
from blockforge.search.study.defaults import UNBOUNDED
from blockforge.search.study.folder import BEST, FAILURES, REPORT, TRIALS
from blockforge.search.study.records import EVALUATED, LABELS, TrialRecord
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

_TOLD = {"failed": "failed", **LABELS, "refused": "over budget, not built", "duplicate": "met twice, evaluated once"}
_NEXT = "Next: the same command with --data, as in --data fashion, ranks by training and confirms the best"
_LARGELY_SIZE = 0.6
_ENOUGH = 10
_COST_NAMES = {
    "macs": "MACs",
    "params": "params",
    "activation_bytes": "activations",
    "depth": "depth",
    RANK_SUM: RANK_SUM,
    CAPACITY: CAPACITY,
}


def report(result: SearchResult) -> Group:
    """The report of a search, to be printed by rich."""
    parts: list[RenderableType] = [Prose(_headline(result), "bold")]
    if result.stopped is not None:
        parts.append(Prose(f"The search ended early: {result.stopped}.", "yellow"))
    if result.best is None:
        parts.append(Prose("No candidate has a score."))
    else:
        parts += [*confirmed_parts(result), _table(result), *_differences(result), _size_table(result)]
        parts += [Prose(line) for line in [screened(result)] if line is not None]
    parts += [Prose(line, "yellow") for line in dropped_starts(result)]
    if (failure := result.first_failure) is not None:
        parts.append(Prose(first_failure(result, failure), "red"))
    if result.folder is not None:
        parts += map(copied, _where(result))
        if result.plan.untrained:
            parts.append(Prose(_NEXT))
    return Group(*parts)


def dropped_starts(result: SearchResult) -> list[str]:
    """A line for each candidate that the search was told to begin with and could not evaluate."""
    ended = [t for t in result.trials if t.start is not None and t.state not in ("duplicate", "interrupted", "running")]
    return [f"The start {t.start} was not evaluated: {t.reason}" for t in ended if t.state not in EVALUATED]


def first_failure(result: SearchResult, failure: TrialRecord) -> str:
    """What the first failed trial says, and where all traces are."""
    where = f"; traces of all: {result.folder / FAILURES}" if result.folder is not None else ""
    return f"First failure (trial {failure.number}): {failure.reason}{where}"


def _headline(result: SearchResult) -> str:
    counts = result.counts
    listed = "".join(f", {counts[s]} {label}" for s, label in _TOLD.items() if counts[s])
    budget = f" within {known}" if (known := str(result.budget)) else ""
    most = f" of {result.target}" if result.target < UNBOUNDED else ""
    done = f"{result.space.name}: {result.evaluated}{most} candidates evaluated{budget}"
    return f"{done}{listed}; {result.seconds:.0f} s"


def _table(result: SearchResult) -> TextTable:
    several, training = any(t.rung for t in result.trials), result.budget.training_bytes is not None
    table = TextTable(
        Label("rank"), *map(Number, result.plan.value_names), *([Number("rung")] if several else []), Number("MACs"),
        Number("params"), Number("activations", leaves=3), *([Number("training", leaves=4)] if training else []),
        Number("depth", leaves=2), Number("hash", leaves=1),
        File(f"file in {BEST}/") if result.folder else Number("trial"),
        title=f"{result.heading}; then the rest of the Pareto front (*)",
    )  # fmt: skip
    front = {t.number for t in result.pareto}
    by_number = {t.number: t for t in result.trials}
    places = {t.number: i for i, t in enumerate(result.ranked, 1)}
    for number, name in best_files(result).items():
        trial = by_number[number]
        table.add_row(
            f"{places[number]}{'*' if number in front else ''}", *(f"{v:.5g}" for v in trial.values or ()),
            *([str(trial.rung)] if several else []), *_costs(trial, training), trial.hash or "",
            name if result.folder else str(number),
        )  # fmt: skip
    return table


def _costs(trial: TrialRecord, training: bool) -> list[str]:
    return [
        format_count(trial.macs or 0),
        format_count(trial.params or 0),
        format_bytes(trial.activation_bytes or 0),
        *([format_bytes(trial.training_bytes or 0)] if training else []),
        str(trial.depth),
    ]


def _differences(result: SearchResult) -> list[RenderableType]:
    """The holes in which the best candidates differ, and those in which they agree."""
    top = result.ranked[:TOP]
    if len(top) < 2:
        return []
    names = [n for n in result.plan.holes if any(n in t.holes for t in top)]
    missing: Any = object()
    equal = [n for n in names if len({repr(t.holes.get(n, missing)) for t in top}) == 1]
    ranks = [Words(f"rank {i}", leaves=len(top) - i or None) for i in range(1, len(top) + 1)]
    table = TextTable(Label("hole"), *ranks, title=f"Where the best {len(top)} differ")
    for name in names:
        if name not in equal:
            table.add_row(name, *(_shown(t.holes[name]) if name in t.holes else "-" for t in top))
    agree = ", ".join(f"{n}={_shown(top[0].holes[n])}" for n in equal)
    return [table, Prose(f"All of them have {agree}.")] if agree else [table]


def _size_table(result: SearchResult) -> RenderableType:
    """How far the score says no more than the size does."""
    taus = {_COST_NAMES[c]: tau for c, tau in result.correlations.items() if tau is not None}
    if not taus:
        return Prose("Too few scores to compare them with the candidates' size.")
    what = result.plan.value_names[0]
    listed = ", ".join(f"{name} {tau:+.2f}" for name, tau in taus.items())
    text = f"Kendall's tau of the {what} with size baselines over {result.counts['scored']} candidates: {listed}."
    largest = max(taus, key=lambda name: abs(taus[name]))
    if abs(taus[largest]) >= _LARGELY_SIZE and result.counts["scored"] >= _ENOUGH:
        text += f"\nThe score orders the candidates much as {largest} alone does: take it as a measure of size."
    return Prose(text)


def _where(result: SearchResult) -> list[str]:
    assert result.folder is not None
    folder = shlex.quote(os.fspath(result.folder))
    lines = [f"Files: {folder}/{REPORT}, {folder}/{TRIALS}, {folder}/{BEST}/"]
    if result.best is not None:
        lines.append(f"Build the best: blockforge build {folder}/{BEST}/{best_files(result)[result.best.number]}")
    if result.best is not None and result.plan.recipe_holes:
        spec = f"{folder}/{BEST}/{best_files(result)[result.best.number]}"
        data = shlex.quote(result.plan.config.goal.data or "DATA")
        lines.append(f"Train it by its recipe: blockforge train {spec} --data {data} --recipe {recipe_file(spec)}")
    more = result.target if result.evaluated < result.target < UNBOUNDED else 2 * result.evaluated
    lines.append(f"Go on: blockforge search --resume {folder} --trials {more}")
    return lines


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The first table of a report: what the best of a search were worth when they were trained again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import RenderableType

from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.search.confirm.result import Confirmation, Measured
from blockforge.search.confirm.statistics import Interval
from blockforge.units import format_count

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

Rows = list[tuple[str, ...]]
COLUMNS = (
    "network",
    "top-1 val",
    "top-1 test",
    "95% interval",
    "the winner leads by",
    "MACs",
    "params",
    "s a training",
)


def confirmed_parts(result: SearchResult) -> list[RenderableType]:
    """The table, and what may be said, to be printed by rich; nothing where nothing was trained again."""
    if (known := result.confirmed) is None:
        return []
    parts: list[RenderableType] = []
    if known.winner is not None:
        parts.append(text_table(known, heading(result, known)))
    return [*parts, *(Prose(line, "bold" if i == 0 else "") for i, line in enumerate(verdicts(result, known)))]


def text_table(known: Confirmation, title: str) -> TextTable:
    """The winner and what it is compared with, to be printed by rich."""
    name, *numbers = COLUMNS
    leaving = {"MACs": 2, "params": 1, "s a training": 1, "95% interval": 3}
    table = TextTable(Label(name), *(Number(n, leaves=leaving.get(n)) for n in numbers), title=title)
    for row in rows(known):
        table.add_row(*row)
    return table


def heading(result: SearchResult, known: Confirmation) -> str:
    """How the figures came about."""
    confirm, plan = result.plan.config.confirm, result.plan
    epochs = f"{confirm.epochs} epochs of " if confirm.epochs is not None else ""
    recipe = f"recipe {confirm.recipe or 'micro'}" if plan.recipe is None else "recipe of each"
    how = f"{recipe} on {plan.data}, {known.seeds} seeds each that chose nothing"
    return f"Confirmed: trained again from scratch by {epochs}the {how}"


def rows(known: Confirmation) -> Rows:
    """A row a network: the winner, then what it is compared with."""
    assert known.winner is not None
    same = f", {', '.join(known.same)}" if known.same else ""
    return [
        _row(known.winner, f"winner ({known.winner.entrant.label}{same})"),
        *(_row(other, other.entrant.label) for other in known.baselines),
    ]


def _row(network: Measured, name: str) -> tuple[str, ...]:
    trial = network.entrant.trial
    test = f"{network.test.estimate:.2f}" if network.test is not None else "-"
    return (
        name, f"{network.val.estimate:.2f}", test, _ends(network.test or network.val),
        str(network.lead) if network.lead is not None else "", format_count(trial.macs or 0),
        format_count(trial.params or 0), f"{network.seconds:.1f}" if network.seconds is not None else "-",
    )  # fmt: skip


def _ends(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}" if interval.values > 1 else "-"


def verdicts(result: SearchResult, known: Confirmation) -> list[str]:
    """What may be said of the winner, and how it was chosen: a line each."""
    if known.winner is None:
        why = "; ".join(f"{n[:8]}: {reason}" for n, reason in known.race.dropped.items())
        if known.left:
            return [f"The best are being trained again: {len(known.trainings)} trainings done, more to come."]
        return [f"None of the best could be trained again: {why}"]
    lines = [f"{other.verdict}." for other in known.baselines if other.verdict]
    lines += [f"The winner is {name}: the search found nothing better." for name in known.same]
    lines += [other.entrant.note for other in known.baselines if other.entrant.note]
    if known.left:
        lines.insert(0, f"Not whole yet: {known.left} trainings are missing.")
    if not known.baselines and not known.same:
        lines.append("There is nothing to compare the winner with: give specs to begin with, --start.")
    if known.tested:
        lines.append("The test images were looked at once, for these networks alone; nothing was chosen by them.")
    else:
        lines.append(f"{result.plan.data} has no test images: these are the ones that the search chose by.")
    return [*lines, *_race(known)]


def _race(known: Confirmation) -> list[str]:
    labels = {e.hash: e.label for e in (*known.entered.baselines, *known.entered.finalists)}
    labels = {n: labels[n] for n in dict.fromkeys([*(e.hash for e in known.entered.finalists), *known.race.values])}
    means = {n: f"{labels[n]} {known.race.mean(n):.2f}" for n in labels if n in known.race.values}
    dropped = [f"{labels[n]} {reason}" for n, reason in known.race.dropped.items()]
    text = f"The race by val images, other seeds: {', '.join(means.values())}"
    return [text + (f"; out: {', '.join(dropped)}" if dropped else "") + "."] if len(labels) > 1 else []

"""`blockforge bench compare`: networks as wide as one budget allows, trained alike with several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blockforge.compiler import Architecture, compile_spec
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.errors import BlockforgeError, BudgetError
from blockforge.search.budget import as_budget, over
from blockforge.search.confirm.statistics import Interval, difference, simultaneous
from blockforge.search.equal_cost.trainings import Run
from blockforge.search.space.fit import fit


class CompareError(BlockforgeError, ValueError):
    """Networks that cannot be compared."""


@dataclass(frozen=True)
class Row:
    """What one network reached. `top1`, its standard deviation `sd` and the extremes in percent, over the seeds.

    Attributes:
        seconds: mean of a training.
        each: top-1 of each seed.
    """

    spec: str
    hash: str
    macs: int
    params: int
    depth: int
    dims: tuple[int, ...]
    seeds: int
    top1: float
    sd: float
    low: float
    high: float
    loss: float
    seconds: float
    each: dict[int, float]


def fitted(specs: Sequence[str], budget: str, share: float, overrides: Sequence[str] = ()) -> dict[str, Architecture]:
    """Each spec with widths that cost `share` of the budget to all of it, by what it is called: its file, or zoo name.

    Raises: BudgetError with all that have no such widths, CompareError, SpecError.
    """
    limits, networks, misfits = as_budget(budget), {}, []
    for spec in specs:
        name = Path(spec).stem
        if name in networks:
            raise CompareError(f"two specs are called '{name}'\n  hint: rename one file, each name is a row")
        try:
            networks[name] = fit(compile_spec(spec, list(overrides)), limits, share)
            if beyond := over(networks[name], limits):  # a limit that widths are not fitted to
                misfits.append(f"'{name}', fitted, costs {beyond}")
        except BudgetError as e:
            misfits.append(str(e).rpartition("\n  hint:")[0] or str(e))
    if misfits:
        raise BudgetError("\n".join([*misfits, "  hint: another --budget or --fit, that all can be fitted to"]))
    return networks


def compare(networks: dict[str, Architecture], runs: Sequence[Run], seeds: int) -> list[Row]:
    """What each network reached, the best first, from runs of one recipe on one data set."""
    rows = []
    for name, arch in networks.items():
        own = [run for run in runs if run.hash == arch.hash and run.seed < seeds]
        tops = [run.top1 for run in own]
        sd = statistics.stdev(tops) if len(tops) > 1 else math.nan
        loss, seconds = (statistics.fmean(values) for values in ([r.loss for r in own], [r.seconds for r in own]))
        dims = tuple(shape.dim for shape in arch.stage_shapes())
        costs = arch.macs, arch.params, arch.depth, dims
        each = {run.seed: run.top1 for run in own}
        spread = statistics.fmean(tops), sd, min(tops), max(tops)
        rows.append(Row(name, arch.hash, *costs, len(own), *spread, loss, seconds, each))
    return sorted(rows, key=lambda row: -row.top1)


def table(rows: Sequence[Row], title: str) -> TextTable:
    """The rows, to be printed by rich."""
    columns = ("top-1", "lowest", "highest", "loss", "MMACs", "k params", "depth", "dims", "s a run")
    leaving = {"s a run": 1, "dims": 2, "depth": 3, "lowest": 4, "highest": 5, "loss": 6}
    shown = TextTable(Label("spec"), *(Number(c, leaves=leaving.get(c)) for c in columns), title=title)
    for row in rows:
        top1 = f"{row.top1:.2f}" if math.isnan(row.sd) else f"{row.top1:.2f} ± {row.sd:.2f}"
        shown.add_row(
            row.spec, top1, f"{row.low:.2f}", f"{row.high:.2f}", f"{row.loss:.3f}", f"{row.macs / 1e6:.2f}",
            f"{row.params / 1e3:.0f}", str(row.depth), " ".join(map(str, row.dims)), f"{row.seconds:.1f}",
        )  # fmt: skip
    return shown


def leads(rows: Sequence[Row]) -> dict[str, Interval]:
    """By how much the first is ahead of each other, seeds in pairs; intervals that hold together."""
    confidence = simultaneous(len(rows) - 1)
    return {row.spec: difference(rows[0].each, row.each, confidence) for row in rows[1:]}


def summary(rows: Sequence[Row]) -> str:
    """How far the first leads the others, beside what seeds alone may make of it."""
    if len(rows) < 2:
        return "There is nothing to compare with."
    if rows[0].seeds < 2:
        lead = f"{rows[0].spec} leads {rows[1].spec} by {rows[0].top1 - rows[1].top1:.2f} points"
        return f"{lead}; one seed does not say whether others would agree."
    said = [
        f"{rows[0].spec} leads {name} by {lead} points: {'better' if lead.better else 'not shown to be better'}"
        for name, lead in leads(rows).items()
    ]
    return "\n".join([*said, "Intervals are of 95% for all together, over the seeds in pairs."])

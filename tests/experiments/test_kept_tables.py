"""The tables of trainings that are kept say what the docs say of them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import swap_choices
import swap_foreign

import blockforge as bf
from blockforge.search.confirm.statistics import Interval, difference, simultaneous
from blockforge.search.equal_cost.compare import compare, leads
from blockforge.search.equal_cost.kept_rows import read_rows
from blockforge.search.equal_cost.trainings import Run

DOCS = Path(__file__).parents[2] / "docs"
TABLES = DOCS / "experiments" / "tables"
SPREAD = re.compile(r"\d\.\d\d \u00b1 \d\.\d\d")


def _lead(table: str, stage: str, other: str, comparisons: int = 1) -> Interval:
    """By how much the winner is ahead on the test images, seeds in pairs."""
    text = (TABLES / f"{table}.csv").read_text(encoding="utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["stage"] == stage]
    ours, theirs = ({int(r["seed"]): float(r["test"]) for r in rows if r["network"] == n} for n in ("winner", other))
    return difference(ours, theirs, simultaneous(comparisons))


@pytest.mark.parametrize(
    ("table", "stage", "other", "comparisons", "better"),
    [
        ("cheaper_cifar10", "final", "seed", 1, True),
        ("cheaper_cifar10", "longer", "seed", 1, True),
        ("cheaper_cifar10", "final", "generic", 2, False),
        ("cheaper_cifar10", "final", "random", 2, False),
        ("better_cifar10", "final", "mambavision_32", 5, False),
        ("better_cifar10", "final", "smt_t", 5, True),
        ("better_cifar10", "final", "sparx_mamba_t", 5, False),
        ("better_cifar10", "final", "vssd_tiny", 5, True),
        ("better_cifar10", "final", "random", 5, False),
    ],
)
def test_leads_are_those_that_the_docs_tell(table: str, stage: str, other: str, comparisons: int, better: bool) -> None:
    lead = _lead(table, stage, other, comparisons)
    assert str(lead) in (DOCS / "search.md").read_text(encoding="utf-8").replace("**", "")
    assert lead.better == better


@pytest.mark.parametrize(("table", "budgets"), [("swap_cifar10", 3), ("swap_cifar10_mambavision", 2)])
def test_leads_of_a_swap_are_those_that_the_docs_tell(table: str, budgets: int) -> None:
    rows = read_rows(TABLES / f"{table}.csv", swap_choices.Row)
    said = [line.strip() for line in (DOCS / "swap.md").read_text(encoding="utf-8").splitlines()]
    told = list(swap_choices.table(rows))
    assert [line for line in told[2 : 2 + budgets] if line not in said] == []
    taus = [
        tau for line in told if line.startswith("tau of") for tau in re.findall(r"\d\.\d\d \u00b1 \d\.\d\d", line)[:1]
    ]
    assert [tau for tau in taus if not any(tau in line for line in said)] == []


def test_what_foreign_blocks_add_is_what_the_docs_tell() -> None:
    said = (DOCS / "swap.md").read_text(encoding="utf-8").splitlines()
    told = list(swap_foreign.table(read_rows(TABLES / "swap_foreign.csv", swap_foreign.Row)))
    assert [line for line in told if line not in said] == []


def test_the_winner_at_twice_the_length_is_what_the_docs_tell() -> None:
    runs = read_rows(TABLES / "better_cifar10_twice.csv", Run)
    specs = (TABLES / f"better_cifar10_{name}.yaml" for name in ("winner", "mambavision_32"))
    rows = compare({file.stem: bf.compile(file) for file in specs}, runs, seeds=14)
    (lead,) = leads(rows).values()
    said = (DOCS / "search.md").read_text(encoding="utf-8")
    assert f"**{str(lead).replace(' (', ' points (')}**" in said
    assert [row.seeds for row in rows] == [14, 14]
    for row in rows:
        assert f"| {row.spec} | {row.top1:.2f} \u00b1 {row.sd:.2f} | {row.low:.2f} | {row.high:.2f} |" in said
    assert all(rows[0].each[seed] > rows[1].each[seed] for seed in range(14))

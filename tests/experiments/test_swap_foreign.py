"""What foreign blocks add to a swap: the table of pairs, and that all that is asked for is made once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import swap_choices
import swap_foreign
from swap_choices import small, spec_of
from swap_foreign import Row, table

from blockforge.cli import script

OWN = Row("net", 0, "macs", 60, "own", 600, 2.0, 1 << 20, 0, 5, 0.02, 0.04, 55.0, 20.0)


def test_the_table_tells_pairs_alone() -> None:
    other = dataclasses.replace(OWN, way="foreign", others=2, kl=0.02, top1=55.5)
    alone = dataclasses.replace(OWN, cost="latency")
    again = [dataclasses.replace(row, seed=1, top1=row.top1 - i) for i, row in enumerate((OWN, other))]
    assert list(table([OWN, other, alone, *again]))[2:] == [
        "| net | 60% of macs | 2 of 5, 2 of 5 | 0.0400 | 0.0200 | 55.00 | 55.00 | +0.50, -0.50 |"
    ]


def test_budgets_are_shares_of_what_the_parent_costs() -> None:
    arch = spec_of("resnet", 3, 100)
    assert swap_foreign.limits(arch, "macs", 60) == "60%"
    size, unit, *_ = swap_foreign.limits(arch, "memory", 60).replace("MB", " MB").split()
    assert unit.startswith("MB:train,batch=64")
    assert float(size) * 1e6 == pytest.approx(0.6 * arch.training_memory(64).total, rel=1e-3)
    assert float(swap_foreign.limits(arch, "latency", 50).removesuffix("ms")) > 0


def test_rows_are_made_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parent on a few digits, with other blocks and without."""
    monkeypatch.setattr(swap_foreign, "small", lambda *_: small("digits", 60, 30, 30))
    monkeypatch.setattr(swap_choices, "EPOCHS", 1)
    monkeypatch.setattr(swap_foreign, "spec_of", lambda name, *_: spec_of(name, 1, 100))
    given = ["--rows", str(tmp_path / "r.csv"), "--kept", str(tmp_path / "p"), "--parents", "resnet"]
    given += ["--budgets", "macs:60", "--steps", "1"]
    assert script(swap_foreign.swap_foreign, given) == 0
    first = (tmp_path / "r.csv").read_text()
    assert [line.split(",")[4] for line in first.splitlines()] == ["way", "own", "foreign"]
    assert script(swap_foreign.swap_foreign, given) == 0
    assert (tmp_path / "r.csv").read_text() == first

"""The table of a swap's choices: leads over other ways, order of scores, and what can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import swap_choices
from swap_choices import BUDGETS, Row, small, table, wanted

from blockforge.cli import script


def _rows() -> list[Row]:
    """Two seeds: the choice leads by a point over random, and scores order networks perfectly. Longer ways at 80%."""
    rows = []
    for seed in range(2):
        rows.append(Row("net", seed, 100, "parent", 1000, 0, 0, 0, 90.0, 40.0, 8.0))
        rows.append(Row("net", seed, 100, "tuned", 1000, 0, 0, 0, 90.2, 5.0, 8.0))
        for number, budget in enumerate(BUDGETS):
            for way, loss in (("choice", 0.0), ("uniform", 0.5), ("skip", 1.5), ("random0", 1.0), ("random1", 1.01)):
                low = 0.1 * number + loss + 0.01 * seed
                rows.append(Row("net", seed, budget, way, 10 * budget, low, low, 80.0, 90 - low, 4.0, 8.0))
        for way, top1 in (("scratch", 89.89), ("taught", 90.14), ("longer", 90.39)):
            rows.append(Row("net", seed, 80, way, 800, 0, 0, 0, top1 - 0.01 * seed, 30.0, 8.0))
    return rows


def test_the_table_tells_leads_and_order() -> None:
    text = "\n".join(table(_rows()))
    assert (
        "| 60% | -0.10 \u00b1 0.01 | -0.30 \u00b1 0.01 | +1.01 \u00b1 0.00, 4 of 4 | +0.50 \u00b1 0.00, 2 of 2 |"
        in text
    )
    longer = "+0.11 \u00b1 0.00, 2 of 2 | -0.14 \u00b1 0.00, 0 of 2 | +0.25 \u00b1 0.00 |"
    assert text.splitlines()[2].endswith(longer)
    assert "tau of expected with top-1 (2 times 20 networks or more): 1.00 \u00b1 0.00 over all budgets, 1.00" in text
    assert "scoring, of one training of the parent, %: 20" in text


def test_rows_of_one_seed_come_before_the_next() -> None:
    keys = list(wanted(["a", "b"], 2))
    assert len(set(keys)) == len(keys)
    assert [k[:3] for k in keys if k[3] == "parent"] == [("a", 0, 100), ("b", 0, 100), ("a", 1, 100), ("b", 1, 100)]


def test_a_row_is_made_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One parent on a few digits: its own row, that of a choice, and it fine-tuned."""
    data = small("digits", 60, 30, 30)
    assert [len(part) for part in data.parts.values()] == [60, 30, 30]
    monkeypatch.setattr(
        swap_choices,
        "wanted",
        lambda *_: [("resnet", 0, 100, "parent"), ("resnet", 0, 60, "choice"), ("resnet", 0, 100, "tuned")],
    )
    monkeypatch.setattr(swap_choices, "EPOCHS", 1)
    given = [
        "--rows",
        str(tmp_path / "r.csv"),
        "--kept",
        str(tmp_path / "p"),
        "--parents",
        "resnet",
        "--data",
        "digits",
    ]
    given += ["--images", "60", "--val", "30", "--test", "30", "--scored", "16"]
    assert script(swap_choices.swap_choices, given) == 0
    first = (tmp_path / "r.csv").read_text()
    assert len(first.splitlines()) == 4
    assert script(swap_choices.swap_choices, given) == 0
    assert (tmp_path / "r.csv").read_text() == first

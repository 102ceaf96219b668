"""Studies that earlier versions left on disk: they are read, and go on as they would have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blockforge.search import open_result, search
from blockforge.search.study.journal import JOURNAL

DATA = Path(__file__).parent.parent / "data" / "search"
TINY = DATA / "tiny.yaml"


@pytest.mark.parametrize(("name", "evaluated"), [("random", 14), ("front", 12)])
def test_a_stored_study_can_be_read(name: str, evaluated: int, tmp_path: Path) -> None:
    shutil.copyfile(DATA / f"journal-0.1-{name}" / JOURNAL, tmp_path / JOURNAL)
    known = open_result(tmp_path)
    assert (known.evaluated, known.target) == (evaluated, evaluated)
    assert known.counts["refused"] > 0
    assert all(t.reason for t in known.trials if t.state == "refused")
    assert known.best is not None
    assert known.best.macs <= known.budget.macs


def test_a_stored_study_goes_on_as_it_would_have(tmp_path: Path) -> None:
    """The journal is cut behind the fifth trial that was evaluated, and the search makes the rest anew."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    lines = (DATA / "journal-0.1-random" / JOURNAL).read_bytes().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines, 1) if line.startswith(b'{"op_code":6,')]
    for folder, end in ((whole, len(lines)), (cut, ends[4])):
        folder.mkdir()
        (folder / JOURNAL).write_bytes(b"".join(lines[:end]))
    before, known = open_result(cut), open_result(whole)
    assert (before.evaluated, known.evaluated) == (5, 14)
    resumed = search(trials=14, out=cut)
    assert [(t.state, t.hash, t.score) for t in resumed.trials if t.state != "interrupted"] == [
        (t.state, t.hash, t.score) for t in known.trials
    ]


def test_a_stored_study_of_several_values_goes_on(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "journal-0.1-front" / JOURNAL, tmp_path / JOURNAL)
    before = open_result(tmp_path)
    resumed = search(trials=before.evaluated + 2, out=tmp_path)
    assert resumed.evaluated == before.evaluated + 2
    assert [t.hash for t in resumed.trials][: len(before.trials)] == [t.hash for t in before.trials]
    assert resumed.plan.directions == before.plan.directions == ["minimize", "minimize"]

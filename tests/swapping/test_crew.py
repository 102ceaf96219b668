"""Workers that fill a swap's folder, each with a GPU of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_parent import NET

import blockforge as bf
from blockforge.errors import BudgetError, RunError
from blockforge.swapping import scored as scoring
from blockforge.swapping.crew import work_together

TINY: dict[str, Any] = {**NET, "stages": [{"dim": 16, "depth": 1, "layers": "conv"}]}


def test_workers_fill_the_folder_and_see_their_own_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What they scored is what one process scores, which then scores nothing; what they refuse is said in a line."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("blockforge.swapping.record.TOGETHER", 2)
    model, out = bf.build(TINY, seed=0), tmp_path / "out"
    bf.save_model(model, tmp_path / "parent")
    given = {"weights": tmp_path / "parent" / "model.safetensors", "images": 16}
    spec = tmp_path / "parent" / "spec.yaml"
    alone = bf.swap(spec, "digits", "60%", **given)
    real = scoring.score
    monkeypatch.setattr(scoring, "score", None)
    together = bf.swap(spec, "digits", "60%", workers=2, out=out, **given)
    assert [s.kl for s in together.scores] == pytest.approx([s.kl for s in alone.scores], rel=1e-3, abs=1e-9)
    logs = [(out / "workers" / f"worker{number}.log").read_text() for number in range(2)]
    assert ["on cpu, GPUs 3" in logs[0], "on cpu, GPUs 5" in logs[1]] == [True, True]
    monkeypatch.setattr(scoring, "score", real)
    with pytest.raises(RunError, match="holds the scores of another run: other images"):
        bf.swap(spec, "digits", "60%", workers=2, out=out, **{**given, "images": 8})
    with pytest.raises(BudgetError, match="smallest"):
        bf.swap(spec, "digits", "1%", workers=2, out=out, **given)
    assert f"workers that ended early: 0, 1 ({out / 'workers'} says why)" in capfd.readouterr().err


def test_what_workers_cannot_open() -> None:
    with pytest.raises(RunError, match="workers share a folder"):
        work_together({}, 2, None)


def test_a_model_is_not_handed_to_workers(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot open a Backbone"):
        bf.swap(bf.build(TINY, seed=0), "digits", "60%", workers=2, out=tmp_path)

"""Runs told to TensorBoard, MLflow and W&B: one a trial, on this machine. The packages are extras."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_net import small_net

import blockforge as bf
from blockforge import trackers
from blockforge.cli import main
from blockforge.errors import BlockforgeError
from blockforge.extras import MissingExtraError

SPACE = small_net({"$int": [8, 9]}, name="told")
CODE = """
def score(arch, trial):
    if arch.plan.stages[0].dim == 9:
        raise ValueError("nine")
    for step in (1, 2):
        trial.report(step, 10 * step)
    return {"score": 25, "loss": 0.5}
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "told.py").write_text(CODE)
    return {"objective": f"{tmp_path / 'told.py'}:score", "sampler": "brute", "trials": 2, "out": tmp_path / "run"}


def test_a_tensorboard_run_for_each_trial(settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = bf.search(SPACE, log=["tensorboard"], **settings)
    by_state = {t.state: t for t in result.trials}
    folders = {f.name: f for f in (tmp_path / "run" / "logs" / "tensorboard").iterdir()}
    assert set(folders) == {f"trial{t.number:04d}-{(t.hash or '')[:8]}" for t in by_state.values()}
    scored = by_state["scored"]
    events = EventAccumulator(str(folders[f"trial{scored.number:04d}-{(scored.hash or '')[:8]}"]))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("score")] == [(1, 10.0), (2, 20.0), (2, 25.0)]
    assert events.Scalars("loss")[-1].value == 0.5
    assert events.Scalars("finished")[-1].value == 1.0


@pytest.mark.filterwarnings("ignore")  # of what mlflow itself calls
def test_an_mlflow_run_for_each_trial(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.tracking import MlflowClient

    result = bf.search(SPACE, log=["mlflow"], **settings)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'logs' / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("search").experiment_id])
    by_trial = {int(run.data.params["trial"]): run for run in runs}
    for trial in result.trials:
        run = by_trial[trial.number]
        assert run.data.params["stages.0.dim"] == str(trial.holes["stages.0.dim"])
        assert run.info.status == ("FINISHED" if trial.state == "scored" else "FAILED")
    scored = by_trial[next(t.number for t in result.trials if t.state == "scored")]
    assert (scored.data.metrics["score"], scored.data.metrics["loss"]) == (25.0, 0.5)
    assert [m.step for m in client.get_metric_history(scored.info.run_id, "score")] == [1, 2, 2]


def test_a_wandb_run_for_each_trial_stays_here(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    bf.search(SPACE, log=["wandb"], **settings)
    assert len(list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*"))) == 2


class Broken:
    def __init__(self, run: trackers.Run) -> None:
        pass

    def log(self, values: Mapping[str, float], step: int) -> None:
        raise OSError("no room")

    def end(self, values: Mapping[str, float], how: str) -> None:
        raise AssertionError("it is told nothing more")


def test_a_tracker_that_fails_ends_nothing(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(trackers._MAKERS, "tensorboard", Broken)
    monkeypatch.setitem(trackers._MODULES, "tensorboard", "json")
    result = bf.search(SPACE, log=["tensorboard"], **settings)
    assert [t.state for t in result.trials].count("scored") == 1
    assert capsys.readouterr().err.count("tensorboard takes nothing more of this run: OSError: no room") == 1


def test_mistakes_are_one_line_before_anything_is_evaluated(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BlockforgeError, match="no tracker named 'tensorbord'\n  hint: did you mean 'tensorboard'"):
        bf.search(SPACE, log=["tensorbord"], **settings)
    monkeypatch.setitem(trackers._MODULES, "mlflow", "a_package_that_is_not_there")
    with pytest.raises(MissingExtraError, match=r"pip install 'blockforge\[mlflow\]'"):
        bf.search(SPACE, log=["mlflow"], **settings)
    monkeypatch.setitem(trackers._MODULES, "wandb", "json")
    with pytest.raises(BlockforgeError, match="wandb needs a folder to log into\n  hint: --out"):
        bf.search(SPACE, log=["wandb"], **{**settings, "out": None})
    assert not (tmp_path / "run").exists()
    assert main(["train", "smt_t", "--data", "digits", "--log", "mlflow", "--out", str(tmp_path / "run")]) == 1
    assert "pip install 'blockforge[mlflow]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

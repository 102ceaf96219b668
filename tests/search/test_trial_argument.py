"""Objectives that are given their trial: `def score(arch, trial)`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_net import small_net

import blockforge as bf
from blockforge.search.objectives.trial import ObjectiveTrial
from blockforge.search.study.storage import join_study, opened
from blockforge.spec import Spec

CODE = """
def score(arch, trial, steps=3):
    file = trial.folder / "seen"
    file.write_text(file.read_text() + "again" if file.exists() else "once")
    for step in range(1, steps + 1):
        trial.report(step, arch.params * step)
        if trial.should_stop():
            return -1.0
    return {"score": arch.params, "seed": trial.seed, "gpu": float(trial.device.type == "cuda")}

def both(arch, report, trial, factor=1):
    report(float(arch.params), 1)
    return arch.params * factor + 0 * trial.seed
"""


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "own_trial.py").write_text(CODE)
    return str(tmp_path / "own_trial.py")


def test_it_knows_seed_folder_and_device_and_values_are_kept(few: Spec, code: str, tmp_path: Path) -> None:
    result = bf.search(few, objective=f"{code}:score:steps=2", trials=3, seed=7, out=tmp_path / "run")
    assert result.evaluated == 3
    assert {t.figures["seed"] for t in result.ranked} == {7}
    for trial in result.ranked:
        assert (tmp_path / "run" / "trials" / f"{trial.hash}-0" / "score" / "seen").read_text() == "once"
    with opened(tmp_path / "run") as storage:
        trials = join_study(storage, "search").trials
    assert all(tuple(trials[t.number].intermediate_values) == (1, 2) for t in result.ranked)


def test_a_pruner_stops_it_and_what_it_returns_is_no_score(few: Spec, code: str) -> None:
    pruner = "optuna.pruners:ThresholdPruner:upper=1.0"
    result = bf.search(few, objective=f"{code}:score", trials=2, pruner=pruner)
    assert [t.state for t in result.trials if t.state != "duplicate"] == ["pruned", "pruned"]
    assert all("pruned at step 1" in str(t.reason) for t in result.trials if t.state == "pruned")


def test_both_forms_take_options(few: Spec, code: str) -> None:
    result = bf.search(few, objective=f"{code}:both:factor=2", trials=2)
    assert all(t.score == 2 * (t.params or 0) for t in result.ranked)
    assert result.evaluated == 2


def test_a_folder_that_nobody_keeps_goes_with_the_trial() -> None:
    with ObjectiveTrial().measured() as trial:
        (folder := trial.folder).joinpath("a").touch()
    assert not folder.exists()
    assert not trial.should_stop()


NET = small_net({"$int": [8, 9]}, name="cut_off")


def test_a_training_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the first of three epochs; its value was a score once, of an epoch of three."""
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(60) % 2)
    told: list[int] = []
    report = ObjectiveTrial.report

    def told_report(self: ObjectiveTrial, step: int, value: float) -> None:
        told.append(step)
        if told == [1]:
            os.kill(os.getpid(), signal.SIGINT)
        report(self, step, value)

    monkeypatch.setattr(ObjectiveTrial, "report", told_report)
    settings: dict[str, Any] = {"objective": f"train:data=npz:{tmp_path / 'noise.npz'},epochs=3", "trials": 1}
    stopped = bf.search(NET, out=tmp_path / "run", **settings)
    assert stopped.signal == signal.SIGINT
    assert [t.state for t in stopped.trials] == ["interrupted"]
    whole = bf.search(NET, out=tmp_path / "run", **settings)
    assert told == [1, 2, 3]
    assert [t.state for t in whole.trials] == ["interrupted", "scored"]
    assert not list((tmp_path / "run").rglob("checkpoint.safetensors"))

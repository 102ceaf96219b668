"""Rungs that are the objective itself up to a report: `--rung report:step=5`."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blockforge as bf
from blockforge.errors import SearchError
from blockforge.search.objectives.trial import ObjectiveTrial
from blockforge.search.study.config_files import read_config
from blockforge.spec import Spec

CODE = """
def score(arch, trial):
    file = trial.folder / "steps"
    done = len(file.read_text()) if file.exists() else 0
    for step in range(done + 1, 7):
        with open(file, "a") as steps:
            steps.write(".")
        trial.report(step, arch.params + step / 10)
        if trial.should_stop():
            return {"score": -1.0, "left": 6 - step}
    return {"score": arch.params + 0.9, "left": 0}

def older(arch, report):
    for step in range(1, 7):
        report(arch.params + step / 10, step)
    return arch.params + 0.9
"""


@pytest.fixture
def code(tmp_path: Path) -> str:
    (tmp_path / "by_steps.py").write_text(CODE)
    return str(tmp_path / "by_steps.py")


def test_what_goes_up_goes_on_where_it_was(few: Spec, code: str, tmp_path: Path) -> None:
    """Values of a rung are what was reported there; a checkpoint in the folder saves the steps below."""
    rungs = ["report:step=2", "report:step=4"]
    result = bf.search(few, objective=f"{code}:score", rungs=rungs, eta=2, trials=6, out=tmp_path / "run")
    scored = [t for t in result.trials if t.state == "scored"]
    assert Counter(t.rung for t in scored) == {0: 6, 1: 3, 2: 1}
    ends = {0: 0.2, 1: 0.4, 2: 0.9}
    assert all(t.score == pytest.approx((t.params or 0) + ends[t.rung]) for t in scored)
    assert {(t.rung, t.figures["left"], t.figures.get("step")) for t in scored} == {(0, 4, 2), (1, 2, 4), (2, 0, None)}
    best = result.ranked[0]
    assert (best.rung, best.params) == (2, max(t.params or 0 for t in scored))
    steps = {t.hash: len((tmp_path / "run" / "trials" / str(t.hash) / "score" / "steps").read_text()) for t in scored}
    assert Counter(steps.values()) == {2: 3, 4: 2, 6: 1}


def test_the_older_form_is_cut_as_well(few: Spec, code: str) -> None:
    rung = ["report:step=3"]
    result = bf.search(few, objectives=[f"{code}:older", "macs"], rungs=rung, eta=2, trials=4)
    assert {round(t.values[0] - (t.params or 0), 1) for t in result.trials if t.rung == 0 and t.values} == {0.3}
    assert {round(t.values[0] - (t.params or 0), 1) for t in result.trials if t.rung == 1 and t.values} == {0.9}


def test_a_training_goes_up_with_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch is trained once, also where a process ends between a rung's checkpoint and its outcome."""
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", images=images, labels=np.arange(60) % 2)
    space = {
        "blockforge": 1, "name": "rungs", "input": {"channels": 1, "size": 8}, "num_classes": 2,
        "blocks": {"b": [{"op": "mlp", "mlp_ratio": 1, "norm": "layer_norm"}]},
        "stem": {"op": "patch_embed", "patch": 4}, "stages": [{"dim": {"$int": [8, 9]}, "depth": 1, "layers": "b"}],
        "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
    }  # fmt: skip
    settings: dict[str, Any] = {
        "objective": f"train:data=npz:{tmp_path / 'noise.npz'},epochs=2", "rungs": ["report:step=1"], "eta": 2,
        "trials": 2, "sampler": "brute", "out": tmp_path / "run",
    }  # fmt: skip
    told: list[int] = []
    report = ObjectiveTrial.report

    def told_report(self: ObjectiveTrial, step: int, value: float) -> None:
        report(self, step, value)
        told.append(step)
        if len(told) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ObjectiveTrial, "report", told_report)
    first = bf.search(space, **settings)
    assert first.signal == signal.SIGINT
    result = bf.search(space, **settings)
    assert Counter(t.rung for t in result.trials if t.state == "scored") == {0: 2, 1: 1}
    assert sorted(told) in ([1, 1, 2], [1, 1, 1, 2])  # told once more where the signal came before the outcome
    top = result.ranked[0]
    whole = bf.search(space, **{**settings, "rungs": None, "out": None})
    assert top.score == next(t.score for t in whole.ranked if t.hash == top.hash)


@pytest.mark.parametrize(
    ("rungs", "objective", "message"),
    [
        (["report:step=2"], "params", "tells no values on its way"),
        (["report:step=2"], "micro:data=digits", "tells no values on its way"),
        (["report:steps=2"], "CODE:score", "names no step\n  hint: report:step=5"),
        (["report:step=0"], "CODE:score", "names no step"),
        (["report:step=4", "report:step=4"], "CODE:score", "rungs go up, steps 4, 4 do not"),
    ],
)
def test_mistakes_are_told_at_once(few: Spec, code: str, rungs: list[str], objective: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        bf.search(few, objective=objective.replace("CODE", code), rungs=rungs, trials=1)


def test_a_file_of_settings_takes_them() -> None:
    settings = {"goal": {"objectives": ["train:data=digits"], "rungs": ["report:step=2"]}}
    assert read_config(settings).goal.rungs == ["report:step=2"]

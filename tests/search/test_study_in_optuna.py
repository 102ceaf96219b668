"""A study of ours in Optuna's own hands: names of values, flat attributes, reasons, constraints."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

import blockforge as bf
from blockforge.search import SearchResult, search
from blockforge.spec import Spec


def deep(arch: bf.Architecture) -> dict[str, float]:
    if arch.depth == 3:
        raise RuntimeError("it broke")
    return {"deep": float(arch.depth), "width": float(arch.plan.stages[-1].dim) / 7}


@pytest.fixture
def both(tiny: Spec, tmp_path: Path) -> tuple[SearchResult, optuna.Study]:
    url = f"sqlite:///{tmp_path}/study.db"
    objectives, budget = [deep, "params"], "500KFLOPs"
    result = search(tiny, objectives=objectives, budget=budget, trials=14, storage=url, study="a", sampler="random")
    return result, optuna.load_study(study_name="a", storage=url)


def test_a_study_can_be_looked_at_with_optuna(both: tuple[SearchResult, optuna.Study]) -> None:
    result, study = both
    assert study.metric_names == ["deep", "params"]
    assert study.user_attrs["config"]["goal"]["objectives"] == ["test_study_in_optuna:deep", "params"]
    frame_of: dict[int, FrozenTrial] = {t.number: t for t in study.trials}
    states = {record.state for record in result.trials}
    assert {"scored", "refused", "failed"} <= states
    for record in result.trials:
        trial = frame_of[record.number]
        assert {k: trial.user_attrs.get(k) for k in ("macs", "params", "hash")} == {
            "macs": record.macs, "params": record.params, "hash": record.hash,
        }  # fmt: skip
        assert trial.user_attrs.get("reason") == record.reason
        if record.state == "refused":
            assert trial.state == TrialState.PRUNED
            assert "against 500K MACs" in trial.user_attrs["reason"]
            assert trial.constraints["macs"] > 0
        if record.state == "failed":
            assert (trial.state, trial.user_attrs["reason"]) == (TrialState.FAIL, "RuntimeError: it broke")
        if record.state == "scored":
            assert trial.user_attrs["width"] == record.figures["width"]
            assert all(by <= 0 for by in trial.constraints.values())
    assert {t.number for t in study.best_trials} >= {t.number for t in result.pareto}


def test_one_value_has_the_name_of_its_objective(tiny: Spec, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    search(tiny, objective="params", trials=2, storage=url, study="a", sampler="random")
    assert optuna.load_study(study_name="a", storage=url).metric_names == ["params"]

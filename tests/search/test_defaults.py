"""What ranks candidates, and at which cost, where nobody says so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.errors import DataError, SearchError
from blockforge.search.fidelity.record import Fidelity, Rung, write_fidelity
from blockforge.search.study.config import SearchConfig, given
from blockforge.search.study.plan import Plan, resolve
from blockforge.spec import Spec


def plan(space: Any, **parts: Any) -> Plan:
    return resolve(given(space={"source": space}, **parts))


def test_without_data_size_ranks_at_equal_cost(tiny: Spec) -> None:
    result = bf.search(tiny, budget="700KFLOPs", trials=4)
    assert result.objective == "capacity"
    assert result.heading == (
        "Candidates by capacity (the sum of log(dim) over layers, a size and no accuracy), "
        "each at 95% to 100% of 700K MACs"
    )
    assert all(0.95 * 700e3 <= (t.macs or 0) <= 700e3 for t in result.ranked)
    for trial in result.ranked:
        stages = bf.compile(result.spec(trial)).plan.stages
        dims = [layer for stage in stages for layer in [stage.dim or 1] * len(stage.layers)]
        assert trial.score == pytest.approx(sum(map(math.log, dims)))


def test_what_is_said_goes_before(tiny: Spec) -> None:
    assert plan(tiny, budget={"limits": "700KFLOPs", "fit": "none"}).fit is None
    assert plan(tiny, budget={"limits": "700KFLOPs"}).fit == 0.95
    assert plan(tiny, budget={"limits": "700KFLOPs"}, goal={"objectives": ["params"]}).fit is None
    assert plan(tiny).fit is None
    assert plan(tiny, budget={"limits": "1GB:train"}).fit is None


def test_what_cannot_be_fitted_is_compared_as_it_is(tiny: Spec, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(tiny, budget={"limits": "1KFLOPs"}).fit is None
    assert "hardly a candidate can be scaled to 95% to 100% of 1.00K MACs" in capsys.readouterr().err


def test_with_data_training_ranks(tiny: Spec, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(tiny, goal={"data": "digits"}, confirm={"recipe": "micro"})
    assert [m.text for m in (*found.rungs, *found.objectives)] == [
        "micro:steps=160,data=digits,recipe=micro", "micro:steps=320,data=digits,recipe=micro"
    ]  # fmt: skip
    assert "ranks after 160 and 320 steps of training, not measured on these data" in capsys.readouterr().err
    assert plan(tiny, goal={"data": "digits", "objectives": ["params"]}).objective == "params"
    with pytest.raises(SearchError, match="there are none\\n  hint: --data"):
        plan(tiny, goal={"fidelity": "a.json"})


def test_data_that_no_source_has_are_refused_before_anything_is_written(tiny: Spec, tmp_path: Path) -> None:
    for data, message in (("fashoin", "no data source 'fashoin'\n  hint: did you mean 'fashion'"), ("idx", "idx:DIR")):
        with pytest.raises(DataError, match=message):
            bf.search(tiny, trials=2, data=data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_measured_fidelity_says_how_long(tiny: Spec, tmp_path: Path) -> None:
    rungs = (
        Rung(steps=40, tau=0.8, low=0.7, high=0.9, seconds=1), Rung(steps=640, tau=1, low=1, high=1, seconds=16)
    )  # fmt: skip
    record = Fidelity(
        space="tiny", data="digits", recipe="micro", budget="1MFLOPs", networks=24, rungs=rungs,
        seed_noise=(0.5, 0.2), spread=(1.0, 0.8),
    )  # fmt: skip
    write_fidelity(record, tmp_path / "a.json")
    choice = record.choose()
    found = plan(tiny, goal={"data": "digits", "fidelity": str(tmp_path / "a.json")})
    assert found.objective == "micro:steps=640,data=digits"
    assert found.rungs[0].text.startswith("micro:steps=40,data=digits")
    assert found.eta == choice.eta > 1


def test_a_study_keeps_what_it_ranks_by(tiny: Spec, tmp_path: Path) -> None:
    """Also one that was begun when another score was the default."""
    bf.search(tiny, objective="params", trials=2, out=tmp_path, sampler="random")
    again = bf.search(tiny, trials=3, out=tmp_path, sampler="random", budget="")
    assert (again.objective, again.plan.fit, again.evaluated) == ("params", None, 3)
    with pytest.raises(SearchError, match="the study ranks without --data, this run has digits"):
        bf.search(tiny, trials=3, out=tmp_path, data="digits")


def test_settings_that_were_kept_say_the_same() -> None:
    config = given(confirm={"top": "none"}, goal={"data": "digits"}, budget={"fit": "none"})
    kept = SearchConfig.model_validate(config.kept())
    assert kept.confirm.top is None
    assert kept.goal.data == "digits"

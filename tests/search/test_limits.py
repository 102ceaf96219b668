"""What ends a search beside trials."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.errors import SpecError
from blockforge.search.workers.limits import UNTIL, Limits
from blockforge.spec import Spec


def slow(arch: bf.Architecture) -> float:
    time.sleep(0.2)
    return float(arch.params)


def test_time_ends_a_search_and_the_next_run_has_its_own(tiny: Spec, tmp_path: Path) -> None:
    first = bf.search(tiny, objective=slow, time="0.5s", out=tmp_path)
    assert first.stopped == "its time was over (--time 0.5s)"
    assert 1 <= first.evaluated <= 3
    second = bf.search(tiny, objective=slow, time="1h", trials=first.evaluated + 1, out=tmp_path)
    assert (second.stopped, second.evaluated) == (None, first.evaluated + 1)


def test_hours_of_evaluation_are_those_of_all_runs(tiny: Spec, tmp_path: Path) -> None:
    hours = 0.5 / 3600
    first = bf.search(tiny, objective=slow, gpu_hours=hours, out=tmp_path)
    assert first.stopped == f"its hours were used up (--gpu-hours {hours:g})"
    assert 1 <= first.evaluated <= 3
    assert bf.search(tiny, objective=slow, gpu_hours=hours, out=tmp_path).evaluated == first.evaluated
    shared = bf.search(tiny, objective=slow, gpu_hours=hours, gpus_per_worker=4)
    assert shared.evaluated == 1


def test_workers_that_join_know_the_time(tiny: Spec) -> None:
    class Study:
        user_attrs: dict[str, Any] = {UNTIL: time.time() - 1}

    plan = bf.search(tiny, objective="params", trials=1, time="3s").plan
    assert Limits(Study(), plan).reached([]) == "its time was over (--time 3s)"  # type: ignore[arg-type]
    Study.user_attrs = {UNTIL: time.time() + 60}
    assert Limits(Study(), plan).reached([]) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"time": "8 parsecs"}, {"gpu_hours": 0.0}])
def test_mistakes(tiny: Spec, wrong: dict[str, Any]) -> None:
    with pytest.raises((SpecError, ValueError), match=r"parsecs|gpu_hours"):
        bf.search(tiny, objective="params", trials=1, **wrong)

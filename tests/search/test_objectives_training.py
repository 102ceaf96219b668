"""Objectives that train or measure: real runs of a few steps, counted and not timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stripes import stripes

import blockforge as bf
from blockforge.errors import SearchError
from blockforge.measure.profile import ProfileError
from blockforge.search.objectives import steps as training_steps
from blockforge.search.objectives.measure import as_measure
from blockforge.search.objectives.registry import make
from blockforge.search.objectives.scores.micro import Micro
from blockforge.search.objectives.scores.train import Train
from blockforge.train import DataError
from blockforge.train.data import Want
from blockforge.train.tensor_split import TensorSplit

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "stripes",
    "input": {"channels": 1, "size": 16},
    "num_classes": 1000,
    "defaults": {"norm": "batch_norm"},
    "blocks": {"conv": [{"op": "dwconv", "kernel_size": 3}, {"op": "mlp", "mlp_ratio": 2}]},
    "stem": {"op": "patch_embed", "patch": 2},
    "stages": [{"dim": 16, "depth": 1, "layers": "conv"}],
    "head": {"op": "classifier", "pool": "avg", "norm": "layer_norm"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def arch() -> bf.Architecture:
    return bf.compile(NET)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return stripes(tmp_path, 96, side=16, apart=5, width=4)


def test_micro_by_steps_repeats(arch: bf.Architecture, data: str) -> None:
    before = torch.random.get_rng_state()
    first = Micro(steps=6, data=data)(arch)
    assert Micro(steps=6, data=data)(arch) == first
    assert Micro(steps=6, data=data, seed=1)(arch)["loss"] != first["loss"]
    assert first["steps"] == 6
    assert torch.equal(torch.random.get_rng_state(), before)


def test_micro_learns(arch: bf.Architecture, data: str) -> None:
    few, more = (Micro(steps=steps, data=data)(arch) for steps in (1, 80))
    assert more["loss"] < few["loss"]
    assert more["micro"] > 50 > 100 / 3


@pytest.mark.parametrize(("a_step", "expected"), [(0.5, 6), (0.25, 12), (100.0, 1)])
def test_micro_by_seconds_makes_the_steps_that_they_allow(
    arch: bf.Architecture, data: str, monkeypatch: pytest.MonkeyPatch, a_step: float, expected: int
) -> None:
    ticks = iter(np.arange(1000) * a_step)
    monkeypatch.setattr(training_steps, "perf_counter", lambda: float(next(ticks)))
    assert Micro(seconds=3.0, data=data)(arch)["steps"] == expected
    assert next(ticks) == training_steps._PILOT * a_step  # the pilot's steps were looked at, and no others


def test_one_epoch_of_steps_goes_through_the_data_again_and_again() -> None:
    split = TensorSplit(torch.arange(10)[:, None, None, None].to(torch.uint8), torch.arange(10))
    steps = training_steps._Steps(split, 7, 4)
    labels = [y for _, y in steps.batches(Want((1, 1), 1, 4, shuffle=True, seed=3))]
    assert len(labels) == 7
    assert len(steps) == 28
    pairs = [torch.cat(labels[i : i + 2]).tolist() for i in (0, 2, 4)]
    assert all(len(set(pair)) == 8 for pair in pairs)  # two batches of an epoch share no image
    assert pairs[0] != pairs[1] != pairs[2]


def test_micro_shrinks_images(arch: bf.Architecture, data: str) -> None:
    assert Micro(steps=2, data=data, size=8)(arch)["loss"] != Micro(steps=2, data=data)(arch)["loss"]


@pytest.mark.parametrize("text", ["micro:steps=0", "micro:seconds=0"])
def test_micro_refuses_no_time(text: str) -> None:
    with pytest.raises(SearchError, match="trains for no time"):
        make(text)


def test_train_repeats_and_keeps_its_runs(arch: bf.Architecture, data: str, tmp_path: Path) -> None:
    objective = Train(data, epochs=2, out=str(tmp_path / "runs"))
    first = objective(arch)
    folder = tmp_path / "runs" / f"{arch.hash}-0"
    assert (folder / "spec.yaml").is_file()
    assert objective(arch)["train"] == first["train"] == Train(data, epochs=2)(arch)["train"]
    with pytest.raises(DataError, match="there is no file"):
        Train("npz:nowhere.npz")(arch)


@pytest.mark.parametrize("score", ["naswot", "expressivity", "zico"])
def test_scores_see_real_images(arch: bf.Architecture, data: str, score: str) -> None:
    seen = make(f"{score}:images=8,data={data}")(arch)
    assert seen == make(f"{score}:images=8,data={data}")(arch)
    assert seen != make(f"{score}:images=8")(arch)


def test_too_few_images_are_an_error(arch: bf.Architecture, data: str) -> None:
    with pytest.raises(DataError, match="fewer than 2 batches of 64"):
        make(f"zico:images=64,data={data}")(arch)


def test_latency_is_to_be_kept_small(arch: bf.Architecture) -> None:
    measure = as_measure("latency:seconds=0.01")
    value, figures = measure(arch)
    assert measure.direction == "minimize"
    assert value > 0
    assert set(figures) == {"latency", "spread"}
    with pytest.raises(ProfileError, match="no device is named 'cpuu'"):
        make("latency:device=cpuu")(arch)

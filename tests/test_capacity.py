"""A network that the machine can never hold is refused before anything is allocated; stages are named rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blockforge as bf
from blockforge import capacity
from blockforge.capacity import CapacityError
from blockforge.cli import main

SWIN = "specs/narrow/swin.yaml"


def giant(layers: int) -> dict[str, Any]:
    return {
        "blockforge": 1, "name": "giant", "stem": "conv_stem", "blocks": {"a": ["dwconv", "mlp"]},
        "stages": [{"dim": 16384, "depth": layers, "layers": "a"}], "head": "classifier",
    }  # fmt: skip


def test_parameters_beyond_the_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr("blockforge.compiler.lowering.backbone.build_modules", lambda *a, **k: made.append(a))
    with pytest.raises(CapacityError, match=r"giant has 10\dG parameters: 4\d\d GB, and this machine has .*\n.*=False"):
        bf.build(giant(50))
    with pytest.raises(CapacityError):
        bf.build(giant(50), features_only=True)
    assert not made


def test_what_is_asked_for_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = bf.compile(SWIN)
    small = sum(n["params"] for n in arch.graph.nodes.values() if (n["stage"] or 0) < 1 and n["kind"] != "head")
    monkeypatch.setattr(capacity, "_main_memory", lambda: 4 * small)
    bf.build(SWIN, features_only=True, out_indices=[0])
    with pytest.raises(CapacityError):
        bf.build(SWIN)
    bf.build(SWIN, check_memory=False)
    with torch.device("meta"):
        bf.build(SWIN)


def test_another_classifier_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bf.build(SWIN)
    monkeypatch.setattr(capacity, "_main_memory", lambda: 4 * model.arch.params)
    before = model.arch
    with pytest.raises(CapacityError):
        model.reset_classifier(100_000)
    assert (model.arch, model.num_classes) == (before, before.plan.num_classes)


def test_activations_of_a_proof_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capacity, "_main_memory", lambda: 10 * 2**20)
    assert main(["build", SWIN, "--set", "input.size=1024"]) == 1
    assert "keeps more at once in a pass of 1 x 1024 x 1024 than there is memory" in capsys.readouterr().err


def test_the_least_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group, unlimited = tmp_path / "memory.max", tmp_path / "max"
    group.write_text("1048576\n")
    unlimited.write_text("max\n")
    monkeypatch.setattr(capacity, "_limit_files", lambda: [group, unlimited, tmp_path / "none"])
    assert capacity._main_memory.__wrapped__() == 2**20


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        (None, (0, 1, 2, 3)),
        ([0, 3], (0, 3)),
        ((-1, 0), (3, 0)),
        (2, (2, 3)),
        (np.array([1, 2]), (1, 2)),
        (range(2), (0, 1)),
    ],
)
def test_stages_as_they_are_named(given: Any, stages: tuple[int, ...]) -> None:
    model = bf.build(SWIN, features_only=True, out_indices=given)
    assert model.out_indices == stages
    assert bf.build(SWIN).features(given).out_indices == stages
    assert model.feature_info.channels() == [model.feature_info[i]["num_chs"] for i in stages]


WRONG = [(), [], "1", b"1", "all", (1.0,), (True,), True, [None], print, (4,), (-5,), 0, 5, -1, 1.5, [[0]]]


@pytest.mark.parametrize("given", WRONG, ids=str)
def test_stages_that_there_are_not(given: Any) -> None:
    model = bf.build(SWIN)
    image = torch.zeros(1, model.in_chans, 32, 32)
    for call in (
        lambda: bf.build(SWIN, features_only=True, out_indices=given),
        lambda: model.features(given),
        lambda: model.forward_intermediates(image, given),
    ):
        with pytest.raises(bf.BlockforgeError, match=r"out_indices are 0 to 3, or negative"):
            call()

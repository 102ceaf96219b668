"""How a step's images are shared out: what cannot work is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.train import Data, DataError, RunError, fit, load_recipe
from blockforge.train.batches import Batches, check_batches, plan_batches

ROOT = Path(__file__).parents[2]
ONE_BY_ONE = {"mambavision", "resnet", "sparx_mamba", "sparx_swin", "strip_mlp", "vssd"}
"""Those with a BatchNorm on a map of 1x1."""
NARROW = sorted(p.stem for p in (ROOT / "specs" / "narrow").glob("*.yaml"))


def planned(data: Data, world: int = 1, **recipe: int) -> Batches:
    return plan_batches(load_recipe({"epochs": 1, "lr": 1.0, **recipe}), data, world)


def test_batches_are_even(data: Data) -> None:
    assert planned(data, batch_size=16) == Batches(16, 1, 4)
    assert planned(data, batch_size=16, accumulate=3) == Batches(16, 3, 4)
    assert planned(data, batch_size=16, accumulate=3).smallest == 5
    assert planned(data, batch_size=1000) == Batches(72, 1, 1)
    assert planned(data, world=4, batch_size=10, accumulate=4) == Batches(2, 2, 9)
    with pytest.raises(RunError, match=r"a batch of 2 cannot be shared out among 4 processes\n  hint: .*batch_size=4"):
        planned(data, world=4, batch_size=2)
    with pytest.raises(DataError, match=r"stripes has 72 images to train on, fewer than there are processes \(73\)"):
        planned(data, world=73, batch_size=100)


@pytest.mark.parametrize(
    "recipe", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}, {"batch_size": 7, "accumulate": 6}]
)
@pytest.mark.parametrize("name", NARROW)
def test_one_image_a_step_trains_or_is_refused_before_anything_is_written(
    name: str, recipe: dict[str, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (10, 32, 32), dtype=np.uint8), np.arange(10) % 2
    np.savez(tmp_path / "s.npz", images=images, labels=labels)
    spec, data = ROOT / "specs" / "narrow" / f"{name}.yaml", f"npz:{tmp_path / 's.npz'}"
    given: dict[str, Any] = {"epochs": 1, "overrides": {"num_classes": 2}}
    if name not in ONE_BY_ONE:
        assert fit(spec, data, recipe_overrides=recipe, **given).history
        return
    parts = recipe.get("accumulate", 1)
    message = rf"cannot be trained with 1 image a step.* \(\w*BatchNorm\w*\) has one .*batch_size={2 * parts}, or more"
    with pytest.raises(RunError, match=f"(?s){message}"):
        fit(spec, data, recipe_overrides=recipe, out=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
    if parts == 1:
        assert fit(spec, data, recipe_overrides={"batch_size": 4, "accumulate": 2}, **given).history


def test_norms_of_larger_maps_train_with_one_image(net: Any, data: Data, fast: Any) -> None:
    fit(net, data, {**fast, "batch_size": 1}, epochs=1)  # its BatchNorm sees a map of 4x4


def test_the_check_leaves_the_network_as_it_was(net: Any) -> None:
    model = bf.build(net, num_classes=3, seed=0).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    check_batches(model, Batches(1, 1, 1))
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_batch_larger_than_the_data_is_said(
    net: Any, data: Data, fast: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(net, data, {**fast, "batch_size": 1000}, epochs=1)
    assert result.history[-1].steps == 1
    assert "note: a batch has 72 images, not 1000: stripes has no more" in capsys.readouterr().err


def test_the_command_refuses_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(ROOT / "specs" / "narrow" / "resnet.yaml")
    argv = ["train", spec, "--data", "digits", "--recipe-set", "batch_size=1", "--out", str(tmp_path / "run")]
    assert main(argv) == 1
    assert capsys.readouterr().err.startswith("error: resnet_narrow cannot be trained with 1 image a step: stages.")
    assert not (tmp_path / "run").exists()

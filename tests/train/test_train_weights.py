"""Starting from weights: ours, official ones with another classifier, and files that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import blockforge as bf
from blockforge.train import Data, DataError, evaluate, fit
from blockforge.weights.official import families

SWIN: dict[str, Any] = {
    "input": {"channels": 1, "size": 16},
    "let.window": 2,
    "stem.patch": 2,
    **{f"stages.{i}.dim": 8 * 2**i for i in range(4)},
    **{f"stages.{i}.depth": 1 for i in range(4)},
    **{f"stages.{i}.let.num_heads": 2 for i in range(4)},
}
STILL: dict[str, Any] = {"epochs": 1, "batch_size": 72, "lr": 1e-12, "weight_decay": 0.0}
"""Nothing moves, so what was loaded is what is found at the end."""


@pytest.fixture
def official() -> dict[str, Tensor]:
    """A checkpoint of 7 classes in Swin's official layout, made backwards from one of our models."""
    model, sources = bf.build("swin_tiny", SWIN, num_classes=7, seed=1), families()["swin"].sources
    found: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        names = sources(key)
        assert names is not None, key
        assert len(names) == 1
        found[names[0]] = value.clone()
    return found


def _still(weights: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether all but the classifier and the statistics of batches are equal."""
    same = (k for k in weights if not k.startswith("head.fc") and "running" not in k and "tracked" not in k)
    return all(torch.allclose(weights[k], other[k], atol=1e-6) for k in same)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}], ids=["plain", "wrapped"])
def test_finetuning_from_an_official_checkpoint(
    official: dict[str, Tensor], data: Data, tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    torch.save(wrap(official), tmp_path / "swin.pth")
    result = fit("swin_tiny", data, STILL, overrides=SWIN, weights=tmp_path / "swin.pth")
    source = bf.build("swin_tiny", SWIN, num_classes=7, seed=1).state_dict()
    assert result.model.num_classes == 3
    assert result.weights["head.fc.weight"].shape == (3, 64)
    assert _still(result.weights, source)


def test_finetuning_from_a_run_of_ours(net: Any, data: Data, fast: Any, tmp_path: Path) -> None:
    first = fit(net, data, fast, out=tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    same = fit(net, data, STILL, weights=file)
    assert same.weights["head.fc.weight"].allclose(first.weights["head.fc.weight"], atol=1e-6)
    four = Data("four", ("a", "b", "c", "d"), data.train, data.val)
    other = fit(net, four, STILL, weights=file)
    assert other.weights["head.fc.weight"].shape == (4, 16)
    assert _still(other.weights, first.weights)
    with pytest.raises(DataError, match=r"model\.safetensors has 3 classes, four has 4"):
        evaluate(net, four, weights=file)


class _Trap:
    """Pickles to a call that leaves a folder behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def _write(case: str, file: Path, good: dict[str, Tensor]) -> Path:
    broken = dict(good)
    if case == "missing":
        del broken["head.norm.weight"]
    if case == "surplus":
        broken["stages.9.norm.weight"] = torch.ones(2)
    if case == "renamed":
        broken["head.nrom.weight"] = broken.pop("head.norm.weight")
    if case == "family":
        broken = {"layer1.0.conv1.weight": torch.ones(1)}
    if case == "code":
        torch.save({"model": _Trap(file.parent / "ran")}, file.with_suffix(".pth"))
        return file.with_suffix(".pth")
    save_file(broken, file)
    return file


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"missing: head\.norm\.weight"),
        ("surplus", r"left over: stages\.9\.norm\.weight"),
        ("renamed", r"missing: head\.norm\.weight; did you mean 'head\.nrom\.weight'"),
        ("family", r"no official layout has these keys \(layer1\.0\.conv1\.weight"),
        ("code", r"w\.pth is refused: it is not a checkpoint of plain tensors"),
    ],
)
@pytest.mark.parametrize("use", [fit, evaluate])
def test_weights_that_do_not_fit(net: Any, data: Data, tmp_path: Path, case: str, message: str, use: Any) -> None:
    good = bf.build(net, num_classes=3).state_dict()
    file = _write(case, tmp_path / "w.safetensors", good)
    given: dict[str, Any] = {"out": tmp_path / "run", "recipe": STILL} if use is fit else {}
    with pytest.raises(bf.WeightsError, match=message):
        use(net, data, weights=file, **given)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "ran").exists()

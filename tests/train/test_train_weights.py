"""Starting from weights: ours, official ones with another classifier, and files that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import blockforge as bf
from blockforge.cli import main
from blockforge.train import Data, DataError, evaluate, fit
from blockforge.weights.family import FAMILIES

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
    model, sources = bf.build("swin_tiny", SWIN, num_classes=7, seed=1), FAMILIES["swin"].sources
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
        ("renamed", r"missing: head\.norm\.weight; nearest in the checkpoint: head\.nrom\.weight"),
        ("family", r"no known layout has these 1 names: layer1\.0\.conv1\.weight"),
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


@pytest.fixture
def files(net: Any, tmp_path: Path) -> Path:
    """A spec, images, and files of weights that do not fit it."""
    import numpy as np

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(net))
    images, labels = np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    bf.save_model(bf.build(net, {"name": "wide", "stages.0.dim": 32}, num_classes=2), tmp_path / "wide")
    official = {"patch_embed.proj.weight": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(1)}
    torch.save({"model": official}, tmp_path / "deit.pth")
    save_file({"model/x": torch.ones(1), "optimizer/x/step": torch.ones(1)}, tmp_path / "checkpoint.safetensors")
    torch.save({"model": _Trap(tmp_path / "ran")}, tmp_path / "evil.pth")
    torch.save({"ema": official}, tmp_path / "ema.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    for case, name in (("surplus", "surplus"), ("renamed", "renamed")):
        _write(case, tmp_path / f"{name}.safetensors", bf.build(net, num_classes=2).state_dict())
    return tmp_path


OURS = "these are our names already"
BAD: dict[str, tuple[str, str]] = {
    "wide/model.safetensors": (
        "(16, 1, 2, 2) in the network\n  shape: stem.0.bias is (32,) in the checkpoint, (16,) in the network\n",
        OURS,
    ),
    "deit.pth": (
        "deit.pth: the weights are in the official layout of deit, and the network is another family's: ",
        "deit.pth: no variant of the zoo fits this deit checkpoint",
    ),
    "surplus.safetensors": ("left over: stages.9.norm.weight; nearest in the network: head.norm.weight", OURS),
    "renamed.safetensors": ("missing: head.norm.weight; nearest in the checkpoint: head.nrom.weight", OURS),
    "checkpoint.safetensors": ("says where a run stands\n  hint: model.safetensors and best.safetensors beside it",)
    * 2,
    "evil.pth": ("evil.pth is refused: it is not a checkpoint of plain tensors (it wants to call ",) * 2,
    "ema.pth": (
        "ema.pth: the weights are in the official layout of deit, and the network is another family's: ",
        "ema.pth: no variant of the zoo fits this deit checkpoint",
    ),
    "none.pth": ("none.pth: the checkpoint holds no tensors; its keys: epoch\n  hint: tensors are looked for by",) * 2,
    "wide": ("no weights at wide\n  hint: wide/model.safetensors",) * 2,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["train", "eval", "build", "convert"])
def test_commands_say_what_is_wrong(
    files: Path, command: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    given = ["tiny.yaml", "--weights", name]
    argv = {
        "train": [*given, "--data", "npz:x.npz", "--out", "run"],
        "eval": [*given, "--data", "npz:x.npz"],
        "build": [*given, "--set", "num_classes=2"],
        "convert": [name, "-o", "out.safetensors"],
    }
    assert main([command, *argv[command]]) == 1
    assert BAD[name][command == "convert"] in capsys.readouterr().err
    assert not {"run", "out.safetensors", "ran"} & {p.name for p in files.iterdir()}


def test_weights_of_another_network_name_it(net: Any, files: Path) -> None:
    hint = r"hint: these are the weights of another network, 'wide'; its spec is .*wide/spec\.yaml$"
    with pytest.raises(bf.WeightsError, match=hint):
        bf.build(net, weights=files / "wide" / "model.safetensors")


def test_a_classifier_of_another_width_is_not_one_of_other_classes(net: Any, tmp_path: Path) -> None:
    state = bf.build(net, num_classes=2).state_dict()
    save_file({**state, "head.fc.weight": torch.ones(2, 8)}, tmp_path / "w.safetensors")
    with pytest.raises(bf.WeightsError, match=r"is \(2, 8\) in the checkpoint, \(2, 16\) in the network$"):
        bf.build(net, num_classes=2, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"num_classes": 3}, "with 3 classes: set num_classes=3"),
        ({"num_classes": 0}, "without a classifier: set num_classes=0"),
        ({"num_classes": 2, "in_chans": 3}, r"for images of 3 channels: set input\.channels=3"),
        (
            {"in_chans": 3, "num_classes": 7},
            r"for images of 3 channels and with 7 classes: set input\.channels=3 and num_classes=7",
        ),
    ],
)
def test_what_would_make_the_weights_fit_is_said(net: Any, tmp_path: Path, given: dict[str, int], hint: str) -> None:
    bf.save_model(bf.build(net, **given), tmp_path)
    with pytest.raises(bf.WeightsError, match=f"hint: these are the weights of a network {hint}$"):
        bf.build(net, num_classes=2, weights=tmp_path / "model.safetensors")
    bf.build(net, **given, weights=tmp_path / "model.safetensors")

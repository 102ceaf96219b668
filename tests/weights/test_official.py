"""Official checkpoints in every form that they come in, and every way in which one does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone

SMALL: dict[str, Any] = {
    "input.size": 32,
    "num_classes": 6,
    **{f"stages.{i}.dim": 16 * 2**i for i in range(4)},
    **{f"stages.{i}.depth": (1, 1, 2, 1)[i] for i in range(4)},
}
State = dict[str, Tensor]


@pytest.fixture
def official() -> State:
    """A checkpoint in SMT's official layout, made backwards from one of our models."""
    from blockforge.weights.family import FAMILIES

    model, sources = _noisy(bf.build("smt_b", SMALL, seed=1)), FAMILIES["smt"].sources
    found: State = {}
    for key, value in model.state_dict().items():
        names = sources(key)
        assert names is not None, key
        if key.endswith(("mix.weight", "bn.weight")):
            assert len(names) == 1
        parts = [value] if len(names) == 1 else _split(value)
        found |= dict(zip(names, parts, strict=True))
    return found


def _split(value: Tensor) -> list[Tensor]:
    """Queries, and keys with values."""
    third = value.shape[0] // 3
    return list(value.split([third, 2 * third]))


def _noisy(model: Backbone) -> Backbone:
    """A model whose buffers are not what a new one has either."""
    for i, (name, buffer) in enumerate(model.named_buffers()):
        if not name.endswith("num_batches_tracked"):
            buffer += 0.01 * (i + 1)
    return model


def _expected() -> State:
    return _noisy(bf.build("smt_b", SMALL, seed=1)).state_dict()


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


FORMS: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": lambda s: dict(s),
    "model": lambda s: {"model": s, "epoch": 3, "optimizer": {"lr": 0.1}},
    "state_dict": lambda s: {"state_dict": s, "arch": "smt"},
    "twice": lambda s: {"model": {"state_dict": s}},
    "module.": lambda s: {f"module.{k}": v for k, v in s.items()},
    "both": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "no counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    "1x1 convolutions": lambda s: {k: v[:, :, None, None] if k.endswith("mlp.fc1.weight") else v for k, v in s.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(official: State, form: str) -> None:
    model = bf.from_official("smt_b", FORMS[form](official), SMALL)
    assert _same(model.state_dict(), _expected())


@pytest.mark.parametrize("form", FORMS)
def test_files_of_torch(official: State, form: str, tmp_path: Path) -> None:
    torch.save(FORMS[form](official), tmp_path / "smt.pth")
    model = bf.build("smt_b", SMALL, weights=tmp_path / "smt.pth")
    assert _same(model.state_dict(), _expected())


@pytest.mark.parametrize("form", ["plain", "module.", "no counters"])
def test_files_of_safetensors(official: State, form: str, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in FORMS[form](official).items()}, tmp_path / "smt.safetensors")
    model = bf.build("smt_b", SMALL, weights=tmp_path / "smt.safetensors")
    assert _same(model.state_dict(), _expected())


def test_half_precision_checkpoints_fill_a_float32_model(official: State) -> None:
    halved = {k: v.bfloat16() if v.is_floating_point() else v for k, v in official.items()}
    model = bf.from_official("smt_b", halved, SMALL)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    expected = _expected()["head.fc.weight"].bfloat16().float()
    assert torch.equal(model.state_dict()["head.fc.weight"], expected)


def _without(key: str) -> Callable[[State], State]:
    return lambda s: {k: v for k, v in s.items() if k != key}


MISFITS: dict[str, tuple[Callable[[State], dict[str, Any]], str]] = {
    "missing": (_without("block1.0.attn.v.weight"), r"missing: block1\.0\.attn\.v\.weight"),
    "half of a fused one": (_without("block4.0.attn.kv.bias"), r"missing: block4\.0\.attn\.kv\.bias"),
    "misspelt": (
        lambda s: {k.replace("head.weight", "haed.weight"): v for k, v in s.items()},
        r"tensors: 1 missing, 1 left over\n"
        r"  missing: head\.weight \(for head\.fc\.weight\); nearest in the checkpoint: haed\.weight\n"
        r"  left over: haed\.weight; nearest in the network: head\.weight$",
    ),
    "surplus": (
        lambda s: {**s, "block9.0.norm1.weight": torch.ones(3)},
        r"left over: block9\.0\.norm1\.weight; nearest in the network: block\d\.0\.norm1\.weight$",
    ),
    "nothing like it": (lambda s: {**s, "x": torch.ones(3)}, "left over: x; nothing like it in the network"),
    "shape": (
        lambda s: {**s, "head.weight": torch.ones(7, 128)},
        r"shape: head\.weight is \(7, 128\) in the checkpoint, \(6, 128\) in the network \(for head\.fc\.weight\)\n"
        r"  hint: these are the weights of a network with 7 classes: set num_classes=7",
    ),
    "parts that cannot be stacked": (
        lambda s: {**s, "block4.0.attn.kv.weight": torch.ones(5, 7)},
        r"shape: block4\.0\.attn\.q\.weight \+ block4\.0\.attn\.kv\.weight is \(128, 128\)",
    ),
    "scalars": (
        lambda s: {k: torch.ones(()) for k in s},
        r"\d+ of another shape\n  shape: .* is \(\) in the checkpoint",
    ),
    "another family": (
        lambda s: {"layer1.0.conv1.weight": torch.ones(1)},
        r"no known layout has these 1 names: layer1\.0\.conv1\.weight; they begin with layer1\.\n.*smt",
    ),
    "no tensors": (lambda s: {"epoch": 3, "lr": 0.1}, r"holds no tensors; its keys: epoch, lr"),
    "empty": (lambda s: {}, r"holds no tensors; its keys: none"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_are_named_and_change_nothing(official: State, case: str) -> None:
    from blockforge.weights import load_official

    spoil, message = MISFITS[case]
    model = bf.build("smt_b", SMALL, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(bf.WeightsError, match=message):
        load_official(model, spoil(official))
    assert _same(model.state_dict(), before)


def test_checkpoint_of_another_size(official: State) -> None:
    with pytest.raises(bf.WeightsError, match=r"(?s)do not fit the network's \d+ tensors: .*shape: .*and \d+ more"):
        bf.from_official("smt_t", official)


def test_model_that_is_not_of_the_family(official: State) -> None:
    spec = Path(__file__).parents[1] / "specs" / "batch_norm.yaml"
    with pytest.raises(bf.WeightsError, match=r"in the official layout of smt, .*: 53 of its 71 tensors have no"):
        bf.from_official(spec, official)


class _Trap:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"model": t}, lambda t: {"a": torch.ones(1), "b": t}])
def test_pickles_that_run_code_are_refused(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    torch.save(wrap(_Trap(tmp_path / "ran")), tmp_path / "evil.pth")
    model = bf.build("smt_b", SMALL, seed=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(bf.WeightsError, match=r"evil\.pth is refused: .* plain tensors \(it wants to call .*mkdir\)\n"):
        bf.load_weights(model, tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    assert _same(model.state_dict(), before)


def test_whole_pickled_models_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(bf.WeightsError, match="is refused: it is not a checkpoint of plain tensors"):
        bf.build("smt_b", SMALL, weights=tmp_path / "whole.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02}q\x00.", b"PK\x03\x04broken", b"\xff" * 64])
def test_broken_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(bf.WeightsError, match=r"broken|holds no tensors"):
        bf.build("smt_b", SMALL, weights=file)


def test_truncated_file(official: State, tmp_path: Path) -> None:
    file = tmp_path / "smt.pth"
    torch.save(official, file)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(bf.WeightsError, match=r"smt\.pth cannot be read"):
        bf.build("smt_b", SMALL, weights=file)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(bf.WeightsError, match=r"no weights at .*gone\.pth"):
        bf.build("smt_b", SMALL, weights=tmp_path / "gone.pth")


def test_file_that_holds_a_list(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(bf.WeightsError, match="holds a list, not a state dict"):
        bf.build("smt_b", SMALL, weights=tmp_path / "list.pth")

"""Norms behind the feature maps: an option of `features_only`."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import blockforge as bf
from blockforge.blocks.registry import blocks
from blockforge.export import export_model

SPEC = Path(__file__).parent / "specs" / "batch_norm.yaml"
OTHERS = {"group_norm": {"op": "group_norm", "num_groups": 2}}


def build(out_norm: Any, **given: Any) -> Any:
    return bf.build(SPEC, features_only=True, out_norm=out_norm, seed=0, **given)


def images(model: Any) -> torch.Tensor:
    return torch.randn(2, model.in_chans, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", sorted(blocks("norm")))
def test_every_norm_stands_behind_the_maps(name: str) -> None:
    model, plain = build(OTHERS.get(name, name)).eval(), build(None).eval()
    norms = {f"out_norms.{i}" for i in range(len(model.feature_info))}
    assert set(model.state_dict()) - set(plain.state_dict()) == {k for k in model.state_dict() if "out_norms" in k}
    assert {k.rpartition(".")[0] for k in model.state_dict() if k.startswith("out_norms")} == norms
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in plain.state_dict().items()), "the same start"
    for i in range(len(norms)):
        for parameter in model.get_submodule(f"out_norms.{i}").parameters():
            nn.init.uniform_(parameter, 0.5, 1.5)
    x = images(model)
    for i, (ours, theirs) in enumerate(zip(model(x), plain(x), strict=True)):
        norm = model.get_submodule(f"out_norms.{i}")
        assert (norm.weight.shape, ours.shape) == ((theirs.shape[1],), theirs.shape)
        channels_last = model.out_norm.layout == "NHWC"
        expected = norm(theirs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if channels_last else norm(theirs)
        torch.testing.assert_close(ours, expected)
        assert not torch.allclose(ours, theirs, atol=1e-3)


def test_of_which_maps() -> None:
    model = build({"op": "layer_norm", "eps": 1e-3}, out_indices=(-1, 0)).eval()
    last = len(bf.load(SPEC).stages) - 1
    assert {k.split(".")[1] for k in model.state_dict() if k.startswith("out_norms")} == {"0", str(last)}
    assert model.get_submodule("out_norms.0").eps == 1e-3
    x = images(model)
    maps = model(x)
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    twice = build("layer_norm", out_indices=(0, 0)).eval()(x)
    torch.testing.assert_close(twice[0], twice[1])
    raw = model.forward_intermediates(x, (0,), intermediates_only=True)
    torch.testing.assert_close(
        model.get_submodule("out_norms.0")(raw[0].permute(0, 2, 3, 1)), maps[1].permute(0, 2, 3, 1)
    )
    torch.testing.assert_close(model.features((0,))(x)[0], maps[1])
    with pytest.raises(bf.BlockforgeError, match=r"the model was built without out_norms\.0"):
        build("layer_norm", out_indices=(last,)).features()


@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm", {"op": "layer_norm", "eps": 1e-6}], ids=str)
def test_copies_and_folders_keep_them(norm: Any, tmp_path: Path) -> None:
    model = build(norm, out_indices=(1, 0)).train()
    model(images(model))  # moves the statistics
    with torch.no_grad():
        model.get_submodule("out_norms.1").weight.uniform_()
    model.eval()
    bf.save_model(model, tmp_path)
    x = images(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), bf.load_model(tmp_path).eval()):
        assert (other.out_norm, other.out_indices) == (model.out_norm, (1, 0))
        assert list(other.state_dict()) == list(model.state_dict())
        for ours, theirs in zip(other(x), model(x), strict=True):
            assert torch.equal(ours, theirs)
    held = json.loads((tmp_path / "versions.json").read_text(encoding="utf-8"))["out_norm"]
    assert held["op"] == (norm if isinstance(norm, str) else norm["op"])
    (tmp_path / "versions.json").write_text('{"out_indices": [1, 0], "out_norm": 3}', encoding="utf-8")
    with pytest.raises(bf.WeightsError, match="out_norm is a norm with its parameters, or null"):
        bf.load_model(tmp_path)


def test_they_are_trained_and_exported(tmp_path: Path) -> None:
    model = build("layer_norm")
    sum(m.square().mean() for m in model(images(model))).backward()
    assert all(p.grad is not None for p in model.parameters())
    done = export_model(model.eval(), tmp_path / "net.pt2", "export")
    assert done.outputs == tuple(f"map_{i}" for i in range(len(model.feature_info)))
    x = torch.randn(2, model.in_chans, *model.arch.plan.input.size)
    for got, wanted in zip(torch.export.load(tmp_path / "net.pt2").module()(x), model(x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_converters_find_them() -> None:
    model = build("batch_norm").eval()
    x = images(model)
    expected = model(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted.get_submodule("out_norms.0"), nn.SyncBatchNorm)
    for ours, theirs in zip(converted(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


WRONG: dict[str, tuple[Any, str]] = {
    "misspelt": ("layernorm", r"out_norm: no norm named 'layernorm'\n  hint: did you mean 'layer_norm'"),
    "no norm": ("attention", r"out_norm: 'attention' is a mixer, not a norm"),
    "parameter": ({"op": "layer_norm", "epsilon": 1e-6}, r"out_norm: 'layer_norm' has no parameter 'epsilon'"),
    "nameless": ({"eps": 1e-6}, r"out_norm={.*} names no norm\n  hint: a norm as specs name it"),
    "a number": (3, r"out_norm is a int\n  hint: a norm as specs name it"),
    "groups": ({"op": "group_norm", "num_groups": 7}, r"out_norm cannot stand behind stage 0: dim \d+ is not divis"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_norm(case: str) -> None:
    given, message = WRONG[case]
    with pytest.raises(bf.BlockforgeError, match=message):
        build(given)


def test_norms_need_maps() -> None:
    with pytest.raises(bf.BlockforgeError, match="out_norm is for feature maps\n  hint: features_only=True"):
        bf.build(SPEC, out_norm="layer_norm")
    assert build("none").out_norm is None

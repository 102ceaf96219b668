"""Weights that follow a spec: copied, cut to leading parts, and new layers that change nothing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.cli import main
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import WeightsError
from blockforge.search.space.widths import Widths
from blockforge.weights.transplant import leading, move_weights

NARROW = Path(__file__).parents[2] / "specs" / "narrow"
GATED: dict[str, Any] = {
    "blockforge": 1, "name": "gated", "input": {"size": 32}, "num_classes": 10, "defaults": {"norm": "layer_norm"},
    "blocks": {"b": [{"op": [
        {"op": "parallel", "join": "mul", "of": {
            "gate": [{"op": "linear", "dim": "$(2 * in)"}, "dwconv", "silu"],
            "value": {"op": "linear", "dim": "$(2 * in)"},
        }},
        {"op": "linear", "dim": "$out"},
    ]}, {"op": "mlp", "mlp_ratio": 3}]},
    "stem": "conv_stem", "downsample": "conv_downsample", "head": "classifier",
    "stages": [{"dim": 16, "depth": 2, "layers": "b"}, {"dim": 32, "depth": 2, "layers": "b"}],
}  # fmt: skip
FAMILIES = ("smt", "sparx_mamba", "vssd", "mambavision", "strip_mlp")
SPECS: dict[str, Any] = {"gated": GATED, **{name: str(NARROW / f"{name}.yaml") for name in FAMILIES}}


@functools.cache
def parent(name: str) -> Backbone:
    model = bf.build(SPECS[name], seed=0).eval()
    with torch.no_grad():  # scales and norms that begin at 0 or 1 would hide what is lost
        for value in (p for p in model.parameters() if p.ndim == 1):
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return model


def noise(model: Backbone) -> Tensor:
    image = model.arch.plan.input
    return torch.randn(2, image.channels, *image.size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SPECS)
def test_the_same_spec_gives_the_same_outputs(name: str) -> None:
    model = parent(name)
    assert torch.equal(model(noise(model)), bf.transplant(model, SPECS[name]).eval()(noise(model)))


@pytest.mark.parametrize("name", SPECS)
def test_a_deeper_network_computes_the_same(name: str) -> None:
    model = parent(name)
    changes = {"stages.0.depth": len(model.arch.stages[0].layers) + 1, "stages.1.depth": 4}
    target = bf.build(SPECS[name], changes, seed=1)
    said = move_weights(model, target)
    assert (said.cut, said.loud) == ([], [])
    assert said.silent
    assert said.new
    torch.testing.assert_close(target.eval()(noise(model)), model(noise(model)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_a_narrower_network_has_the_leading_parts(name: str) -> None:
    model = parent(name)
    widths = Widths(model.arch)
    target = bf.build(SPECS[name], widths.overrides(widths.scaled(0.5, 8)), seed=1)
    said = move_weights(model, target)
    assert said.new == []
    head, own = model.state_dict()["head.fc.weight"], target.state_dict()["head.fc.weight"]
    assert torch.equal(own, head[:, : own.shape[1]])
    assert target.eval()(noise(model)).isfinite().all()


WIDER: dict[str, Any] = {
    "blockforge": 1, "name": "units", "input": {"size": 32}, "num_classes": 10, "defaults": {"norm": "layer_norm"},
    "blocks": {"b": [
        {"op": "attention", "num_heads": 2, "head_dim": 8}, {"op": "dwconv", "kernel_size": 3},
        {"op": "gated_mlp", "mlp_ratio": 2}, {"op": "mbconv", "expand": 2, "norm": "none"},
    ]},
    "stem": "conv_stem", "head": "classifier", "stages": [{"dim": 16, "depth": 2, "layers": "b"}],
}  # fmt: skip
BLOCKS = ("attention", "dwconv", "gated_mlp", "mbconv")
MORE = {"num_heads": 3, "kernel_size": 5, "mlp_ratio": 3, "expand": 4}


def test_a_wider_network_computes_the_same_and_learns() -> None:
    """More heads and channels, larger kernels: what is new adds nothing, but has gradients somewhere."""
    model = bf.build(WIDER, seed=0)
    changes = {f"blocks.b.{i}.{key}": value for i, (key, value) in enumerate(MORE.items())}
    target = bf.build(WIDER, changes, seed=1)
    said = move_weights(model, target)
    assert (said.new, said.cut, said.loud) == ([], [], [])
    assert {name.split(".")[4] for name in said.grown} == {*BLOCKS}
    torch.testing.assert_close(target.eval()(noise(model)), model.eval()(noise(model)), rtol=1e-5, atol=1e-5)
    back = move_weights(target, bf.build(WIDER, seed=2))
    assert (back.grown, {*back.cut}) == ([], {*said.grown})
    target.train()(noise(model)).square().sum().backward()
    for block in ("gated_mlp", "attention"):
        last = [m for m in target.get_submodule(f"stages.0.layers.0.{block}").modules() if isinstance(m, nn.Linear)][-1]
        new = last.weight.shape[1] * 2 // 3
        assert last.weight.grad is not None
        assert not last.weight[:, new:].any()
        assert last.weight.grad[:, new:].abs().max() > 0


def test_the_largest_units_stay() -> None:
    wide = bf.build(WIDER, seed=0)
    name = "stages.0.layers.0.gated_mlp.op.proj.weight"
    before = wide.get_parameter(name)
    with torch.no_grad():
        before[:, 8:24] *= 100
    narrow = bf.transplant(wide, bf.load(WIDER, {"blocks.b.2.mlp_ratio": 1}))
    assert torch.equal(narrow.get_parameter(name), before[:, 8:24])


def test_sides_of_several_widths_are_cut_in_segments() -> None:
    qkv = torch.arange(12.0)[:, None].repeat(1, 4)  # queries, keys and values of width 4
    cut = leading(qkv, torch.zeros(6, 2), (4, 2))
    assert cut[:, 0].tolist() == [0, 1, 4, 5, 8, 9]
    hidden = leading(torch.arange(16.0), torch.zeros(6), (4, 2))  # another ratio: the leading ones
    assert hidden.tolist() == [0, 1, 2, 3, 4, 5]
    grown = leading(torch.ones(4), torch.zeros(8), (4, 8))
    assert grown.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_layers_of_other_blocks_are_made_anew() -> None:
    model = parent("gated")
    blocks = {**GATED["blocks"], "c": ["dwconv"]}
    stages = [GATED["stages"][0], {"dim": 32, "depth": 4, "layers": "c b c b"}]
    target = bf.build({**GATED, "blocks": blocks, "stages": stages}, seed=1)
    said = move_weights(model, target)
    assert said.silent == ["stages.1.layers.0.dwconv", "stages.1.layers.2.dwconv"]
    assert any(name.startswith("stages.1.layers.3.") for name in said.copied)
    torch.testing.assert_close(target.eval()(noise(model)), model(noise(model)), rtol=1e-5, atol=1e-5)


def test_other_classes_get_a_classifier_of_their_own() -> None:
    target = bf.build(GATED, num_classes=7, seed=1)
    said = move_weights(parent("gated"), target)
    assert said.new == ["head.fc.weight", "head.fc.bias"]
    assert said.cut == []


def test_a_branch_that_cannot_be_silent_stays_as_it_was_made() -> None:
    tree = {**GATED, "blocks": {"b": [{"op": "mlp", "skip": False}]}}
    target = bf.build(tree, {"stages.0.depth": 3}, seed=1)
    said = move_weights(bf.build(tree, seed=0), target)
    assert said.loud == ["stages.0.layers.2.mlp"]
    last = [m for m in target.get_submodule(said.loud[0]).modules() if isinstance(m, nn.Linear)][-1]
    assert last.weight.abs().sum() > 0


def test_networks_without_a_layer_in_common_are_refused() -> None:
    other = {**GATED, "name": "other", "stem": "patch_embed", "stages": [{"dim": 8, "depth": 1, "layers": "x"}],
             "blocks": {"x": [{"op": "attention", "head_dim": 8}]}, "head": ["global_pool", "logits"]}  # fmt: skip
    with pytest.raises(WeightsError, match="'gated' and 'other' have no layer in common\n  hint: "):
        bf.transplant(parent("gated"), other)


def test_training_begins_with_the_weights_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("sklearn")
    spec = tmp_path / "gated.yaml"
    tree = {**GATED, "input": {"size": 32, "channels": 1}}
    spec.write_text(bf.load(tree).to_yaml(), encoding="utf-8")
    bf.save_model(bf.build(tree, seed=0), tmp_path / "first")
    command = ["train", str(spec), "--data", "digits", "--set", "stages.1.depth=3", "--recipe-set", "epochs=1"]
    command += ["--init", str(tmp_path / "first"), "--out", str(tmp_path / "run")]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "tensors copied" in said.err + said.out
    assert "2 branches begin as zero residuals, 0 cannot" in said.err + said.out
    assert main([*command, "--weights", "x.safetensors"]) == 2
    bf.save_model(bf.build(tree, seed=1), tmp_path / "other")
    command[command.index("--init") + 1] = str(tmp_path / "other")
    capsys.readouterr()
    assert main(command) == 1
    assert "holds another run:\n  init: " in capsys.readouterr().err

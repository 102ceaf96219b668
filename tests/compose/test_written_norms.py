"""Norms made of ops: before a branch, at a stage's end, as a parameter of a block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from networks import dwconv, linear, network

import blockforge as bf
from blockforge.compiler.diff import changes
from blockforge.eject import check, write_ejected
from blockforge.errors import SpecError
from blockforge.testing import check_spec
from blockforge.testing.measure import randomise

SCALED = ["layer_norm", {"op": "scale", "bias": True}]
FOLDED = [dwconv(), "batch_norm"]
FED = {"rule": "dense", "aggregate": {"op": "dmca", "norm": SCALED}}
STAGES = [{"dim": 16, "depth": 1, "layers": "b"}, {"dim": 16, "depth": 2, "layers": "b", "connect": FED}]
NETWORKS: dict[str, dict[str, Any]] = {
    "branch": network({"op": "mlp", "norm": FOLDED}, stage_norm=SCALED),
    "default": network({"op": "mlp", "skip": linear()}, defaults={"norm": {"op": "parallel", "of": SCALED}}),
    "fed": network({"op": "sam", "norm": SCALED}, stages=STAGES, downsample="none"),
    "parameters": network(
        {"op": "convnext", "norm": "none", "inner_norm": FOLDED},
        {"op": "focal_modulation", "inner_norm": SCALED},
        stem={"op": "conv_stem2", "norm": ["batch_norm", "relu"]},
        head={"op": "classifier", "norm": SCALED, "pooled_norm": SCALED},
    ),
    "tiles": network({"op": "mlp", "norm": {"op": "tiles", "size": 4, "of": SCALED}}),
    "absent": network({"op": "pooling", "norm": {"op": "layer_norm", "when": "$(in > 16)"}}, drop_path=0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_norm_of_ops_costs_what_its_graph_says_and_lives_everywhere(name: str, tmp_path: Path) -> None:
    spec = NETWORKS[name]
    model = randomise(check_spec(spec)).eval()
    assert write_ejected(model, tmp_path / "net.py").error <= check.TOLERANCE
    assert bf.compile(yaml.safe_load(bf.expand(spec))).hash == model.arch.hash
    assert not list(changes(model.arch, bf.compile(spec)))
    bf.save_model(model, tmp_path / "saved")
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        assert torch.equal(bf.load_model(tmp_path / "saved").eval()(x), model(x))
        wanted, deployed = model.double()(x.double()), bf.deploy(model)
        torch.testing.assert_close(deployed(x.double()), wanted, rtol=1e-9, atol=1e-9)
    assert deployed.arch.params == sum(p.numel() for p in deployed.parameters())


def branch(norm: Any, **more: Any) -> bf.Architecture:
    return bf.compile(network({"op": "mlp", "norm": norm}, **more))


def test_one_op_is_that_norm_and_no_op_is_none() -> None:
    plain, define = (
        branch("layer_norm"),
        {"f": {"params": {"eps": 1e-5}, "body": [{"op": "layer_norm", "eps": "$eps"}]}},
    )
    for norm in (["layer_norm"], {"op": ["layer_norm"]}, {"op": "layer_norm", "when": "$(in > 0)"}):
        assert branch(norm).hash == plain.hash
    assert branch("f", define=define).hash == plain.hash
    model = bf.build(network({"op": "mlp", "norm": "f"}, define=define))
    assert model.get_parameter("stages.0.layers.0.mlp.norm.weight").shape == (16,)
    assert branch({"op": "layer_norm", "when": "$(in < 0)"}).hash == branch("none").hash
    two, nested = (branch(norm).hash for norm in (["layer_norm", "gelu"], [["layer_norm"], {"op": "gelu"}]))
    assert two == nested != plain.hash
    absent = {"op": "layer_norm", "when": "$(in < 0)"}
    assert branch("none", stage_norm=absent).hash == branch("none").hash


def test_layers_names_and_rates_are_known_in_a_norm() -> None:
    norms = ["layer_norm", {"op": "scale", "when": "$(layer == 1)"}, "drop_path"]
    model = bf.build(network({"op": "mlp", "norm": norms}, drop_path=0.3))
    names = [name for name, _ in model.named_modules() if name.endswith("norm.scale")]
    assert names == ["stages.1.layers.1.mlp.norm.scale"]
    assert model.get_submodule("stages.1.layers.1.mlp.norm.drop_path").rate == pytest.approx(0.3)


def test_a_norm_may_read_its_map() -> None:
    model = bf.build(network({"op": "mlp", "norm": {"op": "layer_norm", "eps": "$(1 / in)"}}))
    norms = {name: module.eps for name, module in model.named_modules() if name.endswith("mlp.norm.layer_norm")}
    assert set(norms.values()) == {1 / stage.end.last.out_shape.dim for stage in model.arch.stages}


def test_maps_may_have_a_norm_of_ops_behind_them(tmp_path: Path) -> None:
    model = bf.build(network("mlp"), out_indices=(0, 1), out_norm=SCALED).eval()
    bf.save_model(model, tmp_path / "saved")
    x = torch.randn(1, 3, 40, 56)
    for a, b in zip(bf.load_model(tmp_path / "saved").eval()(x), model(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("norm", "match"),
    [
        (["layer_norm", linear(8)], "stands for the norm gives 8x10x14, it reads 16x10x14 .*blocks.b.0..norm"),
        ("attention", "'attention' is a mixer, not a norm"),
        (["layer_norm", "lineer"], "no op named 'lineer' .*norm.op.1"),
        ({"op": "layer_norm", "when": "$(in / 2)"}, "when is true or false"),
    ],
)
def test_what_is_wrong_with_a_norm_has_its_place(norm: Any, match: str) -> None:
    with pytest.raises(SpecError, match=match):
        branch(norm)


@pytest.mark.parametrize("op", [{"op": "convnext"}, {"op": "focal_modulation"}])
def test_what_is_wrong_in_a_parameter_is_told_of_it(op: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"there is no op named 'lineer' .*\(blocks.b\[0\](\.inner_norm)?\)"):
        bf.compile(network({**op, "inner_norm": ["layer_norm", "lineer"]}))


def test_a_definition_that_reads_the_map_is_no_parameter() -> None:
    define = {"f": ["layer_norm", linear("$in")]}
    with pytest.raises(SpecError, match=r"'f' stands in a parameter .*'in' here \(blocks.b.0..inner_norm\)"):
        bf.compile(network({"op": "convnext", "inner_norm": "f"}, define=define))


def test_long_skips_and_acts_take_ops_of_any_form() -> None:
    down = {"op": "conv", "dim": "$out", "kernel_size": 3, "stride": 2}
    stages = [{"dim": dim, "depth": 1, "layers": "b"} for dim in (8, 12, 16)]
    skip = {"from": 1, "to": [2], "op": ["layer_norm", {**down, "kernel_size": 2}]}
    spec = network({"op": "mlp", "post_act": ["relu"]}, stages=stages, downsample=[down], skips=[skip])
    model = check_spec(spec)
    assert model.eval()(torch.randn(1, 3, 37, 51)).shape == (1, 10)
    assert model.arch.hash != bf.compile(spec, {"skips.0.op.0": "rms_norm"}).hash


def test_an_op_alone_in_a_layer_keeps_its_own_keys_when_it_is_written_out() -> None:
    layers = [{"op": "residual", "of": "mlp", "skip": "linear"}]
    spec = network("mlp", stages=[{"dim": 16, "layers": layers}])
    assert bf.compile(yaml.safe_load(bf.expand(spec))).hash == bf.compile(spec).hash

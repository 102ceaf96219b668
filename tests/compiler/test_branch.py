"""What a branch computes with each of its keys, and a stem of a width of its own."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.blocks.leaves import on_nchw
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.eject import eject
from blockforge.testing import check_spec, randomise

SPEC: dict[str, Any] = {
    "blockforge": 1,
    "name": "branch",
    "input": {"size": [12, 20]},
    "num_classes": 5,
    "blocks": {"one": [{"op": "dwconv", "norm": "layer_norm"}]},
    "stem": {"op": "patch_embed", "patch": 4},
    "stages": [{"dim": 8, "depth": 1, "layers": "one"}],
    "head": "classifier",
}
SCALES = ["none", 0.5, {"skip": 1.0}, {"branch": 0.5, "skip": 1.0}]


def built(**keys: Any) -> Backbone:
    model = bf.build({**SPEC, "blocks": {"one": [{**SPEC["blocks"]["one"][0], **keys}]}}, seed=0)
    assert isinstance(randomise(model), Backbone)
    return model.eval()


@pytest.mark.parametrize("scale", SCALES, ids=str)
@pytest.mark.parametrize("post_act", ["none", "relu", "gelu", "identity"])
def test_formula(scale: Any, post_act: str) -> None:
    branch = built(scale=scale, post_act=post_act).get_submodule("stages.0.layers.0.dwconv")
    own = dict(branch.named_parameters())
    x = torch.randn(2, 3, 5, 8)
    with torch.no_grad():
        y = own.get("scale", torch.ones(8)) * on_nchw(branch.get_submodule("op"), branch.get_submodule("norm")(x))
        y = own.get("skip_scale", torch.ones(8)) * x + own.get("skip_bias", torch.zeros(8)) + y
        expected = {"relu": torch.relu, "gelu": torch.nn.functional.gelu}.get(post_act, lambda t: t)(y)
        torch.testing.assert_close(branch(x), expected)


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_costs_with_an_activation_of_the_sum(scale: Any) -> None:
    blocks = {"one": [{"op": "identity", "scale": scale, "post_act": "gelu"}, {"op": "mlp", "post_act": "relu"}]}
    check_spec({**SPEC, "blocks": blocks})


@pytest.mark.parametrize("scale", ["none", 0.5], ids=str)
@pytest.mark.parametrize("post_act", ["none", "relu"])
def test_formula_without_an_identity_path(scale: Any, post_act: str) -> None:
    branch = built(scale=scale, post_act=post_act, skip=False).get_submodule("stages.0.layers.0.dwconv")
    scaled = dict(branch.named_parameters()).get("scale", torch.ones(8))
    x = torch.randn(2, 3, 5, 8)
    with torch.no_grad():
        y = scaled * on_nchw(branch.get_submodule("op"), branch.get_submodule("norm")(x))
        torch.testing.assert_close(branch(x), y.relu() if post_act == "relu" else y)


@pytest.mark.parametrize(
    "keys", [{}, {"scale": 0.5}, {"post_act": "gelu"}, {"scale": 0.5, "post_act": "relu"}], ids=str
)
def test_costs_without_an_identity_path(keys: dict[str, Any]) -> None:
    blocks = {"one": [{"op": "dwconv", "skip": False, **keys}, {"op": "mlp", "skip": False, **keys}, "dwconv"]}
    check_spec({**SPEC, "blocks": blocks})


def test_an_ejected_branch_has_no_identity_path_either(monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(skip=False, scale=0.5)
    module = types.ModuleType("ejected")
    monkeypatch.setitem(sys.modules, "ejected", module)
    exec(eject(model), module.__dict__)
    alone = module.Backbone().eval()
    alone.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 12, 20)
    with torch.no_grad():
        torch.testing.assert_close(alone(x), model(x))


def test_without_an_identity_path_nothing_is_dropped() -> None:
    blocks = {"one": [{"op": "dwconv", "skip": False}, {"op": "mlp"}]}
    spec = {**SPEC, "blocks": blocks, "drop_path": {"constant": 0.5}}
    rates = {node.op: node.drop_path for node in bf.compile(spec).nodes.values() if node.layer is not None}
    assert rates == {"dwconv": 0.0, "mlp": 0.5}


def test_skip_is_true_where_nothing_says() -> None:
    said, unsaid, without = (
        bf.compile({**SPEC, "blocks": {"one": [{"op": "dwconv", **keys}]}}).hash
        for keys in ({"skip": True}, {}, {"skip": False})
    )
    assert said == unsaid != without


def test_a_scale_of_an_identity_path_that_is_left_out() -> None:
    one = {"op": "dwconv", "skip": False}
    with pytest.raises(bf.SpecError, match=r"scale speaks of the identity path, which skip: false leaves out"):
        bf.compile({**SPEC, "blocks": {"one": [{**one, "scale": {"skip": 1.0}}]}})
    given = {**SPEC, "defaults": {"scale": {"skip": 1.0, "branch": 0.5}}, "blocks": {"one": [one, "mlp"]}}
    model = bf.build(given)
    assert sorted(n.rpartition("layers.0.")[2] for n, _ in model.named_parameters() if "scale" in n) == [
        "dwconv.scale",
        "mlp.scale",
        "mlp.skip_scale",
    ]


def test_stem_of_another_width() -> None:
    first = {"dim": 8, "depth": 1, "layers": "one", "downsample": {"op": "conv_downsample"}}
    source = {**SPEC, "stem": {**SPEC["stem"], "dim": 6}, "stages": [first]}
    model = check_spec(source)
    shapes = {name: model.arch.graph.nodes[name]["out_shape"].dim for name in ("stem", "stages.0.downsample")}
    assert shapes == {"stem": 6, "stages.0.downsample": 8}
    assert bf.compile(source, {"stem.dim": 8}).hash == bf.compile({**source, "stem": SPEC["stem"]}).hash


def test_reduction_of_a_row_of_tokens() -> None:
    assert bf.build("deit_s", {"stages.0.depth": 1}, img_size=64).feature_info.reduction() == [16]


@pytest.mark.parametrize(
    "what",
    [
        {"op": "mlp", "scale": 1e300},
        {"op": "mlp", "scale": {"skip": -1e5}},
        {"op": {"op": "residual", "of": "mlp", "scale": "$(in * 1e9)"}},
        {"op": [{"op": "scale", "init": 1e300}]},
    ],
    ids=str,
)
def test_where_a_scale_starts_has_one_bound_wherever_it_is_said(what: Any) -> None:
    """The deployed form writes a branch's scale as the part: what that refuses, the branch must."""
    spec = {
        "blockforge": 1, "name": "net", "input": {"size": 32}, "blocks": {"b": [what]}, "stem": "patch_embed",
        "stages": [{"dim": 8, "depth": 1, "layers": "b"}], "head": "classifier",
    }  # fmt: skip
    with pytest.raises(bf.SpecError, match=r"this should be at (most|least) -?10000\.0"):
        bf.compile(spec)

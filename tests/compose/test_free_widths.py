"""Stages as wide as their layers make them, and stages whose maps are the features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import dwconv, linear, network

import blockforge as bf
from blockforge.search.space.fit import fit
from blockforge.testing import check_spec

GROWS = {"op": {"op": "parallel", "join": "concat", "of": ["identity", [linear(8), dwconv()]]}, "skip": False}
HALVES = ["layer_norm", linear("$(in // 2)"), {"op": "avg_pool", "kernel_size": 2}]
STEM = [{"op": "conv", "dim": 16, "kernel_size": 4, "stride": 4}, "layer_norm"]


def dense(*stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    own = stages or ({"depth": 2, "layers": "b"}, {"depth": 3, "layers": "b"})
    return network(GROWS, **{"stem": STEM, "downsample": HALVES, "stages": list(own), **more})


def test_a_stage_is_as_wide_as_its_layers_make_it() -> None:
    arch = bf.compile(dense())
    assert [tuple(shape) for shape in arch.stage_shapes()] == [(10, 14, 32), (5, 7, 40)]
    check_spec(arch)


def test_feature_maps_have_the_real_widths() -> None:
    model = bf.build(dense(), features_only=True)
    assert model.feature_info.channels() == [32, 40]
    assert [m.shape[1] for m in model(torch.randn(1, 3, 40, 56))] == [32, 40]


def test_a_stage_with_a_width_may_follow_one_without() -> None:
    stages = ({"depth": 1, "layers": "b"}, {"dim": 16, "layers": [linear(), "mlp"]})
    arch = bf.compile(dense(*stages))
    assert [shape.dim for shape in arch.stage_shapes()] == [24, 16]
    fitted = fit(arch, "1MFLOPs", share=0.5)
    assert fitted.stage_shapes()[0].dim == 24
    assert fitted.stage_shapes()[1].dim != 16
    with pytest.raises(bf.BudgetError, match="no stage of 'composed' has a dim that could be fitted"):
        fit(bf.compile(dense()), "1MFLOPs")


def test_stages_that_change_the_width_are_fitted_apart() -> None:
    """Nothing ties them together but that no downsample is between them."""
    stages = [{"dim": 16, "layers": [linear()]}, {"dim": 32, "layers": [linear(), "mlp"]}]
    fitted = fit(bf.compile(network("mlp", downsample="none", stages=stages)), "2MFLOPs", share=0.5)
    first, second = (shape.dim for shape in fitted.stage_shapes())
    assert first != second


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (dense(stem="conv_stem"), r"'conv_stem' needs to be told a width, and its stage has no dim"),
        (dense(downsample="conv_downsample"), r"'conv_downsample' needs to be told a width, and its stage has no dim"),
        (
            dense({"depth": 2, "layers": "b", "connect": {"rule": "dense", "aggregate": "concat"}}),
            r"connect needs a stage with a dim \(stages\[0\].connect\)",
        ),
        (
            dense({"dim": 16, "layers": [["layer_norm", linear(24)]]}),
            "'linear' gives 24 channels, its stage has dim 16",
        ),
        (
            dense({"depth": 1, "layers": "b"}, {"dim": 16}),
            r"'linear' gives 12 channels, its stage has dim 16",
        ),
        (dense(features=[0, 2]), r"there is no stage 2 \(features\[1\]\)"),
        (dense(features=[1, 0]), r"'0' is no stage behind stage 1 \(features\[1\]\)"),
        (dense(features=[]), "this list should have at least 1 item, not 0"),
    ],
)
def test_what_needs_a_width_says_so(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(bf.SpecError, match=message):
        bf.compile(spec)


def test_features_are_the_stages_that_a_spec_names() -> None:
    stages = [{"dim": 8 * (i + 1), "layers": [linear()], "downsample": "none"} for i in range(5)]
    spec = network("mlp", stages=stages, features=[0, 2, 4])
    whole, maps, two = bf.build(spec), bf.build(spec, features_only=True), bf.build(spec, out_indices=2)
    assert maps.out_indices == whole.features().out_indices == (0, 2, 4)
    assert two.out_indices == (2, 4)
    assert bf.build(spec, out_indices=[1]).out_indices == (1,)
    for model in (whole, maps):
        assert model.feature_info.channels() == [8, 24, 40]
    assert [m.shape[1] for m in maps(torch.randn(1, 3, 40, 56))] == [8, 24, 40]
    assert bf.compile(spec).hash == bf.compile({k: v for k, v in spec.items() if k != "features"}).hash


@pytest.mark.parametrize("op", [[{"op": "mlp", "nosuch": 1}], {"op": "mlp", "nosuch": 1}, "f"])
def test_unknown_parameters_of_an_op_in_brackets_or_under_a_name(op: Any) -> None:
    with pytest.raises(bf.SpecError, match=r"'mlp' has no parameter 'nosuch'"):
        bf.compile(network({"op": op}, "f", define={"f": {"op": "mlp", "nosuch": 1}}))

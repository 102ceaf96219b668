"""Attention weights beside the forward pass that they belong to, and the distances read from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import blockforge as bf
from blockforge.analyze import AnalysisError, relative_receptive_fields
from blockforge.analyze.attention import uniform_reach
from blockforge.analyze.record import Grid
from blockforge.blocks.base import Shape
from blockforge.blocks.mixers.attention import Attention
from blockforge.blocks.windows import cut_windows, join_windows
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.testing import randomise

Small = Callable[..., Backbone]
Noise = Callable[..., Tensor]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"qk_norm": True},
    {"rel_pos_bias": True},
    {"window": 4},
    {"window": 4, "shift": "half"},
    {"window": 4, "shift": 1, "rel_pos_bias": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_weights_are_those_of_the_forward_pass(options: dict[str, Any]) -> None:
    """The weights times the values, projected, are what the module gives."""
    op = Attention(num_heads=2, **options)
    module: Any = randomise(op.build(Shape(6, 9, 8))).eval()
    x = torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        weights, positions = module.attention_weights(x)
        v = module.qkv(x).chunk(3, dim=-1)[2]
        tiles = op.tiles(Shape(6, 9, 8))
        cut = cut_windows(module.qkv(cut_windows(x, tiles.height, tiles.shift)), tiles.height) if op.window else v
        if op.window:
            cut = cut.chunk(3, dim=-1)[2]
        mixed = (weights @ cut.flatten(1, 2).unflatten(-1, (2, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)
        mixed = mixed.unflatten(1, cut.shape[1:3])
        if op.window:
            mixed = join_windows(mixed, tiles.height, 6, 9, tiles.shift)
        torch.testing.assert_close(module.proj(mixed), module(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    inside = positions[(positions >= 0).all(-1)]
    assert sorted(map(tuple, inside.tolist())) == [(i, j) for i in range(6) for j in range(9)]


def even(model: Backbone) -> Backbone:
    """With queries of zero: every position reads all that it can see alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".qkv." in name:
                parameter[: len(parameter) // 3].zero_()
    return model


def test_even_attention_has_the_uniform_value(small: Small, noise: Noise) -> None:
    model = even(small("attention"))
    found = relative_receptive_fields(model, noise(model, 3).split(2))
    assert [(r.stage, r.layer) for r in found] == [(0, 0), (1, 1), (1, 2)]
    for reach in found:
        assert reach.relative == pytest.approx(reach.uniform, abs=1e-5)
        assert reach.spread == pytest.approx(0, abs=1e-6)


def test_the_uniform_value() -> None:
    assert uniform_reach(Grid(1, 2)) == pytest.approx(0.5)  # half of the weight is 1 of 1 away
    assert uniform_reach(Grid(1, 3)) == pytest.approx((0.5 + 2 / 3 + 0.5) / 3)


def test_windows_see_less(small: Small, noise: Noise) -> None:
    whole = even(small("attention", {"input.size": 64}))
    cut = even(small("attention", {"input.size": 64, "blocks.layer.0.window": 4}))
    x = noise(whole, 2)
    for a, b in zip(relative_receptive_fields(whole, [x]), relative_receptive_fields(cut, [x]), strict=True):
        assert b.relative < 0.5 * a.relative
        assert b.pixels < a.pixels


def test_windows_of_the_stage_equal_windows_of_the_layer(small: Small, noise: Noise) -> None:
    """Whoever cuts the map, distances are those on the map; the padding is left out."""
    of_stage = even(small("attention", {"stages.0.window": 4}))
    of_layer = even(small("attention", {"blocks.layer.0.window": 4}))
    x = noise(of_stage, 2)
    a, b = (relative_receptive_fields(m, [x])[0] for m in (of_stage, of_layer))
    assert a.relative == pytest.approx(b.relative, rel=1e-5)
    assert a.pixels == pytest.approx(b.pixels, rel=1e-5)


def test_what_a_position_reads_of_itself_is_at_no_distance(small: Small, noise: Noise) -> None:
    model = small("attention", {"blocks.layer.0.window": 1})
    assert [(r.relative, r.pixels) for r in relative_receptive_fields(model, [noise(model, 2)])] == [(0, 0)] * 3


def test_a_class_token_neither_asks_nor_is_read() -> None:
    model = even(bf.build("deit_s", {"input.size": 64, "stages.0.dim": 24, "stages.0.depth": 1}, seed=0).eval())
    (found,) = relative_receptive_fields(model, [torch.randn(2, 3, 64, 64)])
    assert found.uniform == pytest.approx(uniform_reach(Grid(4, 4)))
    assert found.relative == pytest.approx(found.uniform, abs=1e-5)


def test_pixels_are_positions_times_the_stride(small: Small, noise: Noise) -> None:
    model = even(small("attention", {"input.size": 64}))
    first = relative_receptive_fields(model, [noise(model, 1)])[0]
    side = 64 // 4
    mean = sum(
        math.dist((a, b), (c, d)) for a in range(side) for b in range(side) for c in range(side) for d in range(side)
    ) / side**4  # fmt: skip
    assert first.pixels == pytest.approx(4 * mean, rel=1e-5)


def test_a_network_without_attention_names_others(small: Small, noise: Noise) -> None:
    model = small("convnext")
    with pytest.raises(
        AnalysisError, match=r"no layers with attention\n  hint: these have: crossvit_9_240, deit_b, .*smt_t.*swin_tiny"
    ):
        relative_receptive_fields(model, [noise(model, 1)])

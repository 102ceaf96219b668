"""The bias of `attend` that reads the queries: against plain loops, timm's modules, and the laws of joins."""

from __future__ import annotations

import itertools
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_attend import ALIKE, HEADS, SHARED, THREE, WIDE, WIDE_VALUES, close, each, make, run, softmax, whole
from timm_models import load_timm
from torch import Tensor

from blockforge.blocks.base import Shape
from blockforge.blocks.joins.position_bias import RelPosVectors
from blockforge.blocks.rel_pos_vectors import RelativePositionVectors
from blockforge.testing import check_op, example_inputs, randomise

NAME = "rel_pos_vectors"
SIZES = [((4, 6), (4, 6)), ((8, 12), (2, 3)), ((2, 3), (4, 6)), ((7, 5), (2, 3)), ((1, 4), (3, 2)), ((1, 1), (1, 1))]
"""Of queries and of keys: the same, fewer of either, sides that are no multiples."""


def bias_of(q_BNLD: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """By the words: of queries and keys at the same positions."""
    at = list(itertools.product(range(height), range(width)))
    vectors = torch.stack(
        [torch.stack([rows[a - c + height - 1] + columns[b - d + width - 1] for c, d in at]) for a, b in at]
    )
    return torch.einsum("bnld,lsd->bnls", q_BNLD, vectors)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_products_with_vectors_for_both_distances(scale: float | None) -> None:
    module, (q, k, v), y = run(make(bias=NAME, scale=scale), ALIKE)
    bias = bias_of(each(q), module.rel_pos.rows, module.rel_pos.columns, *ALIKE[0][:2])
    close(y, whole(softmax(each(q), each(k), each(v), scale, bias), q))


def test_cosines_have_it_of_the_queries_that_they_multiply() -> None:
    module, (q, k, v), y = run(make(bias=NAME, cosine=True), ALIKE)
    asked = F.normalize(each(q), dim=-1) * module.logit_scale.exp().clamp(max=100)
    bias = bias_of(asked, module.rel_pos.rows, module.rel_pos.columns, *ALIKE[0][:2])
    close(y, whole(softmax(asked, F.normalize(each(k), dim=-1), each(v), 1.0, bias), q))


@pytest.mark.parametrize(("queries", "keys"), SIZES)
def test_it_is_what_mvit_v2_adds(queries: tuple[int, int], keys: tuple[int, int]) -> None:
    load_timm()
    mvit = import_module("timm.models.mvitv2")
    module: Any = randomise(RelativePositionVectors(keys, 8, queries)).double()
    (height, width), (rows, columns) = queries, keys
    q = torch.randn(2, 3, height * width, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        none = q.new_zeros(2, 3, height * width, rows * columns)
        close(module(q), mvit.cal_rel_pos_type(none, q, False, queries, keys, module.rows, module.columns))


def test_it_is_what_bottleneck_attention_adds() -> None:
    """BoTNet's, in which keys are counted from queries, and not queries from keys."""
    load_timm()
    layer = import_module("timm.layers.bottleneck_attn").BottleneckAttn
    theirs = randomise(layer(32, feat_size=(5, 4), num_heads=HEADS, dim_head=6)).double().eval()
    ours: Any = make(head_dim=6, bias=NAME).build((Shape(5, 4, HEADS * (6 + 6 + 8)),), None).double().eval()
    x = torch.randn(2, 32, 5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.rel_pos.rows.copy_(theirs.pos_embed.height_rel.flip(0))
        ours.rel_pos.columns.copy_(theirs.pos_embed.width_rel.flip(0))
        y = ours(theirs.qkv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(y, theirs(x))


@pytest.mark.parametrize("additive", [False, True])
def test_masks_keep_tiles_apart(additive: bool) -> None:
    """Three images of two tiles: each as it would be alone."""
    module, (q, k, v), _ = run(make(bias=NAME), ALIKE)
    maps = [x.repeat(3, 1, 1, 1) * torch.linspace(0.5, 2, 6)[:, None, None, None] for x in (q[:2], k[:2], v[:2])]
    seen = (torch.arange(20)[:, None] - torch.arange(20)).abs() < torch.tensor([4, 9])[:, None, None]
    mask = torch.zeros(seen.shape).double().masked_fill(~seen, -torch.inf) if additive else seen
    y = module(*maps, mask=mask)
    for i in range(6):
        alone = [x[i : i + 1] for x in maps]
        torch.testing.assert_close(y[i : i + 1], module(*alone, mask=mask[i % 2 : i % 2 + 1]))


@pytest.mark.parametrize("talking", [None, True])
@pytest.mark.parametrize("shapes", [*WIDE, THREE, SHARED], ids=["one", "alike", "wide", "fewer keys", "shared"])
def test_laws(shapes: tuple[Shape, ...], talking: bool | None) -> None:
    check_op(make(bias=NAME, talking_heads=talking), shapes, None)
    check_op(make(bias=NAME, cosine=True, talking_heads=talking), shapes, None)


def test_costs_are_of_each_image() -> None:
    op, plain = make(bias=NAME), make()
    q, k, _ = WIDE_VALUES
    extra = op.cost(WIDE_VALUES, None).macs - plain.cost(WIDE_VALUES, None).macs
    assert extra == q.positions * (k.height + k.width) * q.dim
    assert op.once(WIDE_VALUES, None) == 0
    assert op.cost(WIDE_VALUES, None).params == 2 * (2 * 5 - 1) * q.dim // HEADS
    RelPosVectors().check(*THREE[:2], HEADS)  # more queries than keys


def test_it_serves_smaller_maps() -> None:
    module, smaller = make(bias=NAME).build(ALIKE, None), (Shape(3, 4, 16),) * 3
    small = make(bias=NAME).build(smaller, None)
    small.rel_pos.load_state_dict({"rows": module.rel_pos.rows[2:-2], "columns": module.rel_pos.columns})
    maps = example_inputs("join", smaller, None)
    assert torch.equal(module(*maps), small(*maps))
    assert module.no_weight_decay() | module.rel_pos.no_weight_decay() == {"rows", "columns"}


def test_vectors_of_another_size_lie_between_their_neighbours() -> None:
    """As timm's filter of checkpoints has it."""
    module = RelativePositionVectors((5, 4), 8, (5, 4))
    line = torch.arange(5.0)[:, None].expand(5, 8)
    wanted = F.interpolate(line.T[None], size=9, mode="linear")[0].T
    resized = module.resized("rows", line)
    assert resized is not None
    assert torch.equal(resized, wanted)
    assert (resized.diff(dim=0) >= 0).all()
    assert module.resized("rows", torch.zeros(5, 6)) is None
    assert module.resized("columns", torch.zeros(5)) is None

"""`attend` gives what timm's attention modules give, with their projections around it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from timm_models import load_timm
from torch import Tensor, nn

from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.testing import randomise

HEADS = 4


def timm_module(family: str, cls: str, *args: Any, **kwargs: Any) -> Any:
    """A module of timm's in evaluation mode and double precision, off its initial values."""
    load_timm()
    torch.manual_seed(0)
    module = randomise(getattr(import_module(f"timm.models.{family}"), cls)(*args, **kwargs)).double()
    module.eval()  # LeViT's returns nothing
    return module


def attend(shapes: tuple[Shape, ...], **params: Any) -> Any:
    op = registry.make("attend", {"num_heads": HEADS, **params}, "join")
    op.check(shapes, None)
    return op.build(shapes, None).double().eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_swin_v2(masked: bool) -> None:
    theirs = timm_module("swin_transformer_v2", "WindowAttention", 32, (4, 6), HEADS)
    tile = (Shape(4, 6, 96),)
    ours = attend(tile, cosine=True, bias={"op": "rel_pos_mlp"})
    ours.logit_scale.copy_(theirs.logit_scale)
    ours.rel_pos.cpb_mlp.load_state_dict(theirs.cpb_mlp.state_dict())
    x = noise(6, 24, 32)
    mask = torch.where(noise(3, 24, 24) > 0, -100.0, 0.0).double() if masked else None
    bias = torch.cat([theirs.q_bias, theirs.k_bias, theirs.v_bias])
    qkv = nn.functional.linear(x, theirs.qkv.weight, bias)
    y = theirs.proj(ours(qkv.unflatten(1, (4, 6)), mask=mask).flatten(1, 2))
    torch.testing.assert_close(y, theirs(x, mask), rtol=1e-6, atol=1e-6)  # positions are made in float32 by both


@torch.no_grad()
def test_efficientvit() -> None:
    theirs = timm_module("efficientvit_mit", "LiteMLA", 32, 32, dim=8, scales=(3,))
    theirs.proj = nn.Identity()
    x = noise(2, 32, 5, 7)
    qkv = theirs.qkv(x)
    both = torch.cat([qkv, theirs.aggreg[0](qkv)], dim=1).permute(0, 2, 3, 1)
    ours = attend((Shape(5, 7, 192),), num_heads=8, form="relu_linear", order="by_head")
    torch.testing.assert_close(ours(both), theirs(x).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)  # theirs is in float32


@torch.no_grad()
def test_levit() -> None:
    theirs = timm_module("levit", "Attention", 32, 6, HEADS, attn_ratio=2.0, resolution=(5, 7))
    theirs.proj = nn.Identity()
    shapes = (Shape(5, 7, HEADS * 24),)
    ours = attend(shapes, head_dim=6, order="by_head", bias={"op": "rel_pos_table", "symmetric": True})
    ours.rel_pos.table.copy_(theirs.attention_biases.T)
    x = noise(2, 35, 32)
    torch.testing.assert_close(ours(theirs.qkv(x).unflatten(1, (5, 7))).flatten(1, 2), theirs(x))


@torch.no_grad()
def test_levit_with_fewer_queries() -> None:
    theirs = timm_module("levit", "AttentionDownsample", 32, 48, 6, HEADS, resolution=(5, 7))
    theirs.proj = nn.Identity()
    shapes = (Shape(3, 4, HEADS * 6), Shape(5, 7, HEADS * 18))
    ours = attend(shapes, order="by_head", bias={"op": "rel_pos_table", "symmetric": True})
    ours.rel_pos.table.copy_(theirs.attention_biases.T)
    x = noise(2, 35, 32)
    y = ours(theirs.q(x).unflatten(1, (3, 4)), theirs.kv(x).unflatten(1, (5, 7)))
    torch.testing.assert_close(y.flatten(1, 2), theirs(x))

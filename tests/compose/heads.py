"""Networks with heads that end in maps and several of them, and what their tests share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import blockforge as bf
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import by_name
from blockforge.spec import from_text

BASE = """
blockforge: 1
name: two_stages
input: {size: 32}
num_classes: 5
blocks: {b: [conv_mlp]}
stem: {op: patch_embed, patch: 4}
downsample: patch_merging
stages:
  - {dim: 8, depth: 1, layers: b}
  - {dim: 16, depth: 1, layers: b}
"""
SEG = "[{op: resize, scale: 4}, {op: conv, dim: 12, kernel_size: 3}, batch_norm, relu, logits]"
AUX = "[{op: conv, dim: 6, kernel_size: 3}, {op: dropout, rate: 0.1}, logits]"
MAP = f"{BASE}head: {SEG}\n"
HEADS = f"{BASE}heads: {{seg: {SEG}, aux: {AUX}, top: {{op: classifier, norm: layer_norm}}}}\n"
SHAPES = {"seg": (5, 16, 16), "aux": (5, 4, 4), "top": (5,)}
TEXTS = {"map": MAP, "heads": HEADS}


def built(text: str, **options: Any) -> Backbone:
    return bf.build(from_text(text), seed=0, **options).eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def shapes(model: Backbone, batch: int = 2) -> Any:
    with torch.no_grad():
        given = model(images(batch))
    return {k: tuple(y.shape[1:]) for k, y in given.items()} if isinstance(given, dict) else tuple(given.shape[1:])


def same(a: Any, b: Any) -> None:
    a, b = by_name(a), by_name(b)
    assert list(a) == list(b)
    for name, y in a.items():
        torch.testing.assert_close(b[name], y, rtol=1e-4, atol=1e-5)

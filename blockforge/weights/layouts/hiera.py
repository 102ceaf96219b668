"""Hiera's layout in timm, which counts the layers of all stages through."""

from __future__ import annotations

import bisect
import re

from torch import Tensor

from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers
from blockforge.weights.official import Family, register


def _attention(ours: str) -> dict[str, Names]:
    return {
        f"{ours}.parallel.q.linear": "attn.q",
        f"{ours}.parallel.k": "attn.k",
        f"{ours}.parallel.v": "attn.v",
        f"{ours}.linear": "attn.proj",
    }


_PLACES = ("attn.op.tiles.qkv", "attn.op.qkv", "pooled.op.residual.attn.tiles.qkv", "pooled.op.residual.attn.qkv")
_LAYER: dict[str, Names] = {
    "attn.norm": "norm1",
    "pooled.op.ln": "norm1",
    "pooled.op.residual.skip.linear": "proj",
    **{k: v for place in _PLACES for k, v in _attention(place).items()},
    "wide_mlp.norm": "norm2",
    "wide_mlp.op.linear": "mlp.fc1",
    "wide_mlp.op.linear_2": "mlp.fc2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "patch_embed.proj",
    "stem.pos_embed.pos_embed": "pos_embed",
    **in_layers(_LAYER, "stages.{s}.{l}"),
    "head.ln": "head.norm",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers by stages, each of which begins where a layer projects; queries, keys and values apart."""
    firsts = sorted({0, *(int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.proj\.", key)))})
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if match := re.match(r"blocks\.(\d+)\.(.*)", key):
            stage = bisect.bisect(firsts, int(match[1])) - 1
            key = f"stages.{stage}.{int(match[1]) - firsts[stage]}.{match[2]}"
        parts = zip("qkv", value.chunk(3), strict=True) if ".attn.qkv." in key else [("", value)]
        found |= {key.replace("qkv", role): part for role, part in parts}
    return found


_MARKS = {"pos_embed", "patch_embed.proj.weight", "blocks.1.proj.weight", "blocks.0.attn.qkv.weight"}

HIERA = register(Family("hiera", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

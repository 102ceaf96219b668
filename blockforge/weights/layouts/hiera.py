"""Hiera's layout in timm."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers


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
    **in_layers(_LAYER, "blocks.{l}"),
    "head.ln": "head.norm",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values apart."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        parts = zip("qkv", value.chunk(3), strict=True) if ".attn.qkv." in key else [("", value)]
        tensors |= {key.replace("qkv", role): part for role, part in parts}
    return tensors


_MARKS = {"pos_embed", "patch_embed.proj.weight", "blocks.1.proj.weight", "blocks.0.attn.qkv.weight"}

HIERA = register(Family("hiera", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare, counts_through=True))

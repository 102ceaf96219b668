"""Swin Transformer V2's layout in timm."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_ATTENTION = "windows.op.tiles.attention_v2"
_LAYER = {
    f"{_ATTENTION}.parallel.q": "attn.q",
    f"{_ATTENTION}.parallel.k": "attn.k",
    f"{_ATTENTION}.parallel.v": "attn.v",
    f"{_ATTENTION}.parallel.attend.logit_scale": "attn.logit_scale",
    f"{_ATTENTION}.parallel.attend.rel_pos.cpb_mlp.{{i}}": "attn.cpb_mlp.{i}",
    f"{_ATTENTION}.linear": "attn.proj",
    "windows.op.layer_norm": "norm1",
    "mlp_norm.op.linear": "mlp.fc1",
    "mlp_norm.op.linear_2": "mlp.fc2",
    "mlp_norm.op.layer_norm": "norm2",
}
_ROWS = {
    "stem.conv": "patch_embed.proj",
    "stem.layer_norm": "patch_embed.norm",
    "stages.{s}.downsample.linear": "layers.{s}.downsample.reduction",
    "stages.{s}.downsample.layer_norm": "layers.{s}.downsample.norm",
    **in_layers(_LAYER, "layers.{s}.blocks.{l}"),
    "head.layer_norm": "norm",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values apart. Keys have no bias."""
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("attn.qkv.weight"):
            parts = zip("qkv", value.chunk(3), strict=True)
            tensors |= {key.replace("qkv", role): part for role, part in parts}
        else:
            tensors[re.sub(r"attn\.([qv])_bias$", r"attn.\1.bias", key)] = value
    return tensors


def _computed(key: str) -> bool:
    return key.endswith((".relative_position_index", ".relative_coords_table", ".attn_mask", ".k_bias"))


_MARKS = {"patch_embed.proj.weight", "layers.0.blocks.0.attn.cpb_mlp.0.weight"}

SWIN_V2 = register(Family("swin_v2", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare, _computed))

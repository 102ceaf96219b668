"""Swin Transformer's official layout (github microsoft/Swin-Transformer), and timm's."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import VIT_LAYER, by_table, in_layers

_LAYER = {**VIT_LAYER, "attention.op.rel_pos.table": "attn.relative_position_bias_table"}
_ROWS = {
    "stem.0": "patch_embed.proj",
    "stem.1": "patch_embed.norm",
    "stages.{s}.downsample.norm": "layers.{s-1}.downsample.norm",
    "stages.{s}.downsample.proj": "layers.{s-1}.downsample.reduction",
    **in_layers(_LAYER, "layers.{s}.blocks.{l}"),
    "out_norms.{s}": "norm{s}",
    "head.norm": "norm",
    "head.fc": "head",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's layout as the official one: there a patch merging belongs to the stage behind it."""
    if "head.fc.weight" not in state:
        return state
    return {_official(key): value for key, value in state.items()}


def _official(key: str) -> str:
    key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
    return re.sub(r"^head\.fc\.", "head.", key)


def _computed(key: str) -> bool:
    return key.endswith((".relative_position_index", ".attn_mask"))


_MARKS = {"patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"}

SWIN = register(Family("swin", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare, _computed))

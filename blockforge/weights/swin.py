"""Swin Transformer's official layout (github microsoft/Swin-Transformer), and timm's."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.official import Family, register

_LAYER = {
    "attention.norm": "norm1",
    "attention.op.qkv": "attn.qkv",
    "attention.op.proj": "attn.proj",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
_OTHER = {"stem.0": "patch_embed.proj", "stem.1": "patch_embed.norm", "head.norm": "norm", "head.fc": "head"}


def _sources(key: str) -> tuple[str, ...] | None:
    """Our key -> official key."""
    owner, _, leaf = key.rpartition(".")
    if owner in _OTHER:
        return (f"{_OTHER[owner]}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.(norm|proj)", owner):
        name = {"norm": "norm", "proj": "reduction"}[match[2]]
        return (f"layers.{int(match[1]) - 1}.downsample.{name}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.(.+)", owner):
        block = f"layers.{match[1]}.blocks.{match[2]}"
        if match[3] == "attention.op.rel_pos":
            return (f"{block}.attn.relative_position_bias_table",)
        if match[3] in _LAYER:
            return (f"{block}.{_LAYER[match[3]]}.{leaf}",)
    return None


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

SWIN = register(Family("swin", lambda keys: keys >= _MARKS, _sources, _prepare, _computed))

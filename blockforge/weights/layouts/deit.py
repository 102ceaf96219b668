"""The layout of DeiT and ViT, registers and distillation included (github facebookresearch/deit, timm): it is one."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import VIT_LAYER, by_table

_LAYER = {**VIT_LAYER, "attention.scale": "ls1.gamma", "mlp.scale": "ls2.gamma"}
_ROWS = {
    "stem.class_token": "cls_token",
    "stem.add_tokens.tokens": "cls_token",
    "stem.pos_embed.pos_embed": "pos_embed",
    "stem.pos_embed": "pos_embed",
    "stem.proj": "patch_embed.proj",
    "stem.conv": "patch_embed.proj",
    **{f"stages.0.layers.{{l}}.{ours}": f"blocks.{{l}}.{name}" for ours, name in _LAYER.items()},
    "head.norm": "norm",
    "head.pooled_norm": "norm",
    "head.fc": "head",
    "head.ln": "norm",
    "head.logits": "head",
    "head.parallel.class.logits": "head",
    "head.parallel.distilled.logits": "head_dist",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One name for the last norm, which bears another where it stands behind the pooling, and one for all tokens."""
    state = {f"norm.{key[8:]}" if key.startswith("fc_norm.") else key: value for key, value in state.items()}
    others = [state.pop(name) for name in ("dist_token", "reg_token") if name in state]
    if others and "cls_token" in state:
        state["cls_token"] = torch.cat([state["cls_token"], *others], dim=1)
    return state


_MARKS = {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"}
_OTHERS = {"blocks.1.proj.weight", "blocks.0.gamma_1"}
"""Hiera's layers bear the same names, and some of them this one besides, those with rotary embeddings the other."""


def _matches(keys: set[str]) -> bool:
    return keys >= _MARKS and keys.isdisjoint(_OTHERS)


DEIT = register(Family("deit", _matches, by_table(_ROWS), _prepare, counts_through=True))

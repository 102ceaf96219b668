"""PiT's layout in timm."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import VIT_LAYER, by_table, in_layers

_ROWS = {
    "stem.conv": "patch_embed.conv",
    "stem.pos_embed.pos_embed": "pos_embed",
    "stem.add_tokens.tokens": "cls_token",
    **in_layers(VIT_LAYER, "transformers.{s}.blocks.{l}"),
    "stages.{s}.downsample.parallel.token.linear": "transformers.{s}.pool.fc",
    "stages.{s}.downsample.parallel.map.conv": "transformers.{s}.pool.conv",
    "head.ln": "norm",
    "head.logits": "head",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A vector for each position has its channels first there."""
    return {**state, "pos_embed": state["pos_embed"].flatten(2).mT} if "pos_embed" in state else state


_MARKS = {"pos_embed", "cls_token", "transformers.0.blocks.0.attn.qkv.weight"}

PIT = register(Family("pit", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

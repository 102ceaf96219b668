"""MaxViT's layout in timm."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_MB = {
    "bn": "pre_norm",
    "conv": "conv1_1x1",
    "bn_2": "norm1",
    "dwconv": "conv2_kxk",
    "bn_3": "norm2",
    "se.chain.linear": "se.fc1",
    "se.chain.linear_2": "se.fc2",
    "conv_2": "conv3_1x1",
}


def _attention(block: str, mlp: str, official: str) -> dict[str, Names]:
    """An attention and the MLP behind it, which timm has in one module."""
    inside = f"{block}.op.self_attention"
    return {
        f"{block}.norm": f"{official}.norm1",
        f"{inside}.linear": f"{official}.attn.qkv",
        f"{inside}.attend.rel_pos.table": f"{official}.attn.rel_pos.relative_position_bias_table",
        f"{inside}.linear_2": f"{official}.attn.proj",
        f"{mlp}.norm": f"{official}.norm2",
        f"{mlp}.op.linear": f"{official}.mlp.fc1",
        f"{mlp}.op.linear_2": f"{official}.mlp.fc2",
    }


_LAYER: dict[str, Names] = {
    **{f"mb.op.mb.{ours}": f"conv.{name}" for ours, name in _MB.items()},
    "mb.op.skip.conv": "conv.shortcut.expand",
    **_attention("block_attention", "tanh_mlp", "attn_block"),
    **_attention("grid_attention", "tanh_mlp_2", "attn_grid"),
}
_ROWS: dict[str, Names] = {
    "stem.conv": "stem.conv1",
    "stem.bn": "stem.norm1",
    "stem.conv_2": "stem.conv2",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.layer_norm": "head.norm",
    "head.linear": "head.pre_logits.fc",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tables have an axis for either direction behind that of the heads, and count from key to query."""
    return {k: v.flip(1, 2).flatten(1).T if k.endswith("relative_position_bias_table") else v for k, v in state.items()}


_MARKS = {"stem.conv1.weight", "stages.0.blocks.0.attn_grid.attn.qkv.weight"}

MAXVIT = register(Family("maxvit", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

"""CoAtNet's layout in timm (the variants that end in rw)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers


def _attention(ours: str) -> dict[str, Names]:
    return {
        f"{ours}.linear": "attn.qkv",
        f"{ours}.attend.rel_pos.table": "attn.rel_pos.relative_position_bias_table",
        f"{ours}.linear_2": "attn.proj",
    }


_MB = "mb.op.mb"
_FIRST = "first_attention.op"
_LAYER: dict[str, Names] = {
    "mb.op.skip.conv": "shortcut.expand",
    f"{_MB}.batch_norm": "pre_norm",
    **conv_bn(f"{_MB}.conv_bn", "conv1_1x1", "norm1"),
    f"{_MB}.dwconv": "conv2_kxk",
    f"{_MB}.se.chain.linear": "se_early.fc1",
    f"{_MB}.se.chain.linear_2": "se_early.fc2",
    f"{_MB}.batch_norm_2": "norm2",
    f"{_MB}.conv": "conv3_1x1",
    f"{_FIRST}.skip.conv": "shortcut.expand",
    f"{_FIRST}.first_attention.ln": "norm1.norm",
    **_attention(f"{_FIRST}.first_attention.attention"),
    "attention.norm": "norm1",
    **_attention("attention.op"),
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem.conv_bn", "stem.conv1", "stem.norm1"),
    "stem.conv": "stem.conv2",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.layer_norm": "norm",
    "head.logits": "head.fc",
}

_MARKS = {"stem.conv1.weight", "stages.0.blocks.0.pre_norm.weight", "norm.weight"}


def _computed(key: str) -> bool:
    return key.endswith(".relative_position_index")


COATNET = register(Family("coatnet", lambda keys: keys >= _MARKS, by_table(_ROWS), computed=_computed))

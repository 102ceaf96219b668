"""PVT v2's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_LAYER = {
    "reduced_attention.norm": "norm1",
    "reduced_attention.op.parallel.q": "attn.q",
    "reduced_attention.op.parallel.kv.conv": "attn.sr",
    "reduced_attention.op.parallel.kv.layer_norm": "attn.norm",
    "reduced_attention.op.parallel.kv.linear": "attn.kv",
    "reduced_attention.op.linear": "attn.proj",
    "dw_mlp.norm": "norm2",
    "dw_mlp.op.linear": "mlp.fc1",
    "dw_mlp.op.dwconv": "mlp.dwconv",
    "dw_mlp.op.linear_2": "mlp.fc2",
}
_ROWS = {
    "stem.conv": "patch_embed.proj",
    "stem.layer_norm": "patch_embed.norm",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.proj",
    "stages.{s}.downsample.layer_norm": "stages.{s}.downsample.norm",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "stages.{s}.norm": "stages.{s}.norm",
    "head.logits": "head",
}

_MARKS = {"patch_embed.proj.weight", "stages.0.blocks.0.mlp.dwconv.weight"}

PVT_V2 = register(Family("pvt_v2", lambda keys: keys >= _MARKS, by_table(_ROWS)))

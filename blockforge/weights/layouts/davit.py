"""DaViT's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LAYER: dict[str, Names] = {
    "dwconv.op": "0.cpe1.proj",
    "tiles.norm": "0.norm1",
    "tiles.op.self_attention.linear": "0.attn.qkv",
    "tiles.op.self_attention.linear_2": "0.attn.proj",
    "dwconv_2.op": "0.cpe2.proj",
    "mlp.norm": "0.norm2",
    "mlp.op.fc1": "0.mlp.fc1",
    "mlp.op.fc2": "0.mlp.fc2",
    "dwconv_3.op": "1.cpe1.proj",
    "channel_attention.norm": "1.norm1",
    "channel_attention.op.graph.qkv": "1.attn.qkv",
    "channel_attention.op.linear": "1.attn.proj",
    "dwconv_4.op": "1.cpe2.proj",
    "mlp_2.norm": "1.norm2",
    "mlp_2.op.fc1": "1.mlp.fc1",
    "mlp_2.op.fc2": "1.mlp.fc2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "stem.conv",
    "stem.layer_norm": "stem.norm",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "stages.{s}.downsample.layer_norm": "stages.{s}.downsample.norm",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.conv",
    "head.layer_norm": "head.norm",
    "head.logits": "head.fc",
}

_MARKS = {"stages.0.blocks.0.0.cpe1.proj.weight", "stages.0.blocks.0.1.cpe2.proj.weight"}

DAVIT = register(Family("davit", lambda keys: keys >= _MARKS, by_table(_ROWS)))

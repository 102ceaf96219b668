"""The layout of Twins-SVT (official code, timm)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LOCAL, _GLOBAL = "local_attention", "global_attention"
_LAYER: dict[str, Names] = {
    f"{_LOCAL}.norm": "norm1",
    f"{_LOCAL}.op.self_attention.linear": "attn.qkv",
    f"{_LOCAL}.op.self_attention.linear_2": "attn.proj",
    f"{_GLOBAL}.norm": "norm1",
    f"{_GLOBAL}.op.parallel.q": "attn.q",
    f"{_GLOBAL}.op.parallel.kv.conv": "attn.sr",
    f"{_GLOBAL}.op.parallel.kv.layer_norm": "attn.norm",
    f"{_GLOBAL}.op.parallel.kv.linear": "attn.kv",
    f"{_GLOBAL}.op.linear": "attn.proj",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "patch_embeds.0.proj",
    "stem.layer_norm": "patch_embeds.0.norm",
    "stages.{s}.downsample.conv": "patch_embeds.{s}.proj",
    "stages.{s}.downsample.layer_norm": "patch_embeds.{s}.norm",
    "stages.{s}.layers.{l}.dwconv.op": "pos_block.{s}.proj.0",
    **in_layers(_LAYER, "blocks.{s}.{l}"),
    "head.ln": "norm",
    "head.logits": "head",
}

_MARKS = {"patch_embeds.0.proj.weight", "pos_block.0.proj.0.weight"}

TWINS = register(Family("twins", lambda keys: keys >= _MARKS, by_table(_ROWS)))

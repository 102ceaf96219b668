"""The layout of timm's vision transformers with rotary embeddings (`timm.models.eva`)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table

_LAYER: dict[str, Names] = {
    "chain.norm": "norm1",
    "chain.op.linear": "attn.qkv",
    "chain.op.linear_2": "attn.proj",
    "chain.scale": "gamma_1",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
    "mlp.scale": "gamma_2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "patch_embed.proj",
    "stem.add_tokens.tokens": "reg_token",
    **{f"stages.0.layers.{{l}}.{ours}": f"blocks.{{l}}.{name}" for ours, name in _LAYER.items()},
    "head.ln": "fc_norm",
    "head.logits": "head",
}

_MARKS = {"reg_token", "blocks.0.gamma_1", "blocks.0.attn.qkv.weight", "fc_norm.weight"}

ROPE_VIT = register(Family("rope_vit", lambda keys: keys >= _MARKS and "pos_embed" not in keys, by_table(_ROWS)))

"""CaiT's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table

_LAYER: dict[str, Names] = {
    "talking.norm": "norm1",
    "talking.op.linear": "attn.qkv",
    "talking.op.attend.mix_products": "attn.proj_l",
    "talking.op.attend.mix_weights": "attn.proj_w",
    "talking.op.linear_2": "attn.proj",
    "talking.scale": "gamma_1",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
    "mlp.scale": "gamma_2",
}
_TOKEN: dict[str, Names] = {
    "residual.norm": "norm1",
    **{f"residual.class_attention.parallel.{role}": f"attn.{role}" for role in "kv"},
    "residual.class_attention.parallel.q.linear": "attn.q",
    "residual.class_attention.linear": "attn.proj",
    "residual.scale.weight": "gamma_1",
    "residual_2.norm": "norm2",
    "residual_2.mlp.fc1": "mlp.fc1",
    "residual_2.mlp.fc2": "mlp.fc2",
    "residual_2.scale.weight": "gamma_2",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "patch_embed.proj",
    "stem.pos_embed.pos_embed": "pos_embed",
    **{f"stages.0.layers.{{l}}.{ours}": f"blocks.{{l}}.{name}" for ours, name in _LAYER.items()},
    "head.add_tokens.tokens": "cls_token",
    **{f"head.repeat.{{i}}.parallel.token.{ours}": f"blocks_token_only.{{i}}.{name}" for ours, name in _TOKEN.items()},
    "head.ln": "norm",
    "head.logits": "head",
}

_MARKS = {"cls_token", "blocks.0.attn.proj_l.weight", "blocks_token_only.0.attn.q.weight"}

CAIT = register(Family("cait", lambda keys: keys >= _MARKS, by_table(_ROWS)))

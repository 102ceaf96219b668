"""XCiT's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn

_LAYER: dict[str, Names] = {
    "xca.norm": "norm1",
    "xca.op.linear": "attn.qkv",
    "xca.op.attend.temperature": "attn.temperature",
    "xca.op.linear_2": "attn.proj",
    "xca.scale": "gamma1",
    "local.norm": "norm3",
    "local.op.dwconv": "local_mp.conv1",
    "local.op.batch_norm": "local_mp.bn",
    "local.op.dwconv_2": "local_mp.conv2",
    "local.scale": "gamma3",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
    "mlp.scale": "gamma2",
}
_TOKEN: dict[str, Names] = {
    "residual.norm": "norm1",
    **{f"residual.beside.token.parallel.{role}": f"attn.{role}" for role in "kv"},
    "residual.beside.token.parallel.q.linear": "attn.q",
    "residual.beside.token.linear": "attn.proj",
    "residual.scale.weight": "gamma1",
    "ln": "norm2",
    "residual_2.beside.token.linear": "mlp.fc1",
    "residual_2.beside.token.linear_2": "mlp.fc2",
    "residual_2.beside.token.scale.weight": "gamma2",
}
_STEM = ("conv3", "conv3_2", "conv3_3", "conv3_4")
_ROWS: dict[str, Names] = {
    **{
        ours: official
        for i, name in enumerate(_STEM)
        for ours, official in conv_bn(
            f"stem.{name}", f"patch_embed.proj.{2 * i}.0", f"patch_embed.proj.{2 * i}.1"
        ).items()
    },
    "stem.place.split.positions": "pos_embed.token_projection",
    **{f"stages.0.layers.{{l}}.{ours}": f"blocks.{{l}}.{name}" for ours, name in _LAYER.items()},
    "head.add_tokens.tokens": "cls_token",
    **{f"head.repeat.{{i}}.{ours}": f"cls_attn_blocks.{{i}}.{name}" for ours, name in _TOKEN.items()},
    "head.ln": "norm",
    "head.logits": "head",
}

_MARKS = {"cls_token", "pos_embed.token_projection.weight", "blocks.0.attn.temperature"}

XCIT = register(Family("xcit", lambda keys: keys >= _MARKS, by_table(_ROWS)))

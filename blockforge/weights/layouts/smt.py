"""SMT's official layout (github AFeng-x/SMT)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LAYER: dict[str, Names] = {
    "sam.norm": "norm1",
    "sam.scale": "gamma_1",
    "sam.op.v": "attn.v",
    "sam.op.s": "attn.s",
    "sam.op.convs.{k}": "attn.local_conv_{k+1}",
    "sam.op.mix": "attn.proj0",
    "sam.op.bn": "attn.bn",
    "sam.op.gather": "attn.proj1",
    "sam.op.proj": "attn.proj",
    "attention.norm": "norm1",
    "attention.scale": "gamma_1",
    "attention.op.qkv": ("attn.q", "attn.kv"),
    "attention.op.local_conv": "attn.local_conv",
    "attention.op.proj": "attn.proj",
    "conv_mlp.norm": "norm2",
    "conv_mlp.scale": "gamma_2",
    "conv_mlp.op.fc1": "mlp.fc1",
    "conv_mlp.op.dwconv": "mlp.dwconv.dwconv",
    "conv_mlp.op.fc2": "mlp.fc2",
}
_ROWS = {
    "stem.0": "patch_embed1.conv.0",
    "stem.1": "patch_embed1.conv.1",
    "stem.3": "patch_embed1.conv.3",
    "stem.4": "patch_embed1.norm",
    "stages.{s}.downsample.0": "patch_embed{s+1}.proj",
    "stages.{s}.downsample.1": "patch_embed{s+1}.norm",
    **in_layers(_LAYER, "block{s+1}.{l}"),
    "stages.{s}.norm": "norm{s+1}",
    "head.fc": "head",
}

SMT = register(
    Family(
        "smt", lambda keys: {"patch_embed1.conv.0.weight", "block1.0.mlp.dwconv.dwconv.weight"} <= keys, by_table(_ROWS)
    )
)

"""The layout of MetaFormer's baselines in timm: CAFormer, PoolFormer V2."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LAYER: dict[str, Names] = {
    "sepconv.norm": "norm1",
    "sepconv.op.linear": "token_mixer.pwconv1",
    "sepconv.op.star_relu": "token_mixer.act1",
    "sepconv.op.dwconv": "token_mixer.dwconv",
    "sepconv.op.linear_2": "token_mixer.pwconv2",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.act": "mlp.act",
    "mlp.op.fc2": "mlp.fc2",
    "pooling.norm": "norm1",
    "pooling.op.norm": "norm1",
    "pooling.op.skip.weight": "res_scale1.scale",
    "attention.op.norm": "norm1",
    "attention.op.attention.qkv": "token_mixer.qkv",
    "attention.op.attention.proj": "token_mixer.proj",
    "attention.op.skip.weight": "res_scale1.scale",
    "mlp.op.norm": "norm2",
    "mlp.op.mlp.fc1": "mlp.fc1",
    "mlp.op.mlp.act": "mlp.act",
    "mlp.op.mlp.fc2": "mlp.fc2",
    "mlp.op.skip.weight": "res_scale2.scale",
}
_ROWS: dict[str, Names] = {
    "stem.conv": "stem.conv",
    "stem.ln": "stem.norm",
    "stages.{s}.downsample.ln": "stages.{s}.downsample.norm",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.conv",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.layer_norm": "head.norm",
    "head.linear": "head.fc.fc1",
    "head.layer_norm_2": "head.fc.norm",
    "head.logits": "head.fc",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last layer of a head of two is called as that of one is."""
    return {key.replace("head.fc.fc2.", "head.fc."): value for key, value in state.items()}


_MARKS = {"stem.norm.weight", "stages.0.blocks.0.mlp.act.scale"}

METAFORMER = register(Family("metaformer", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

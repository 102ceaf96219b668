"""MambaVision's official layout (github NVlabs/MambaVision)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LAYER: dict[str, Names] = {
    "conv_block.op.0": "conv1",
    "conv_block.op.1": "norm1",
    "conv_block.op.3": "conv2",
    "conv_block.op.4": "norm2",
    "conv_block.scale": "gamma",
    "mamba_vision.norm": "norm1",
    "mamba_vision.op": "mixer",
    "mamba_vision.op.fc": "mixer.in_proj",
    "mamba_vision.op.conv": ("mixer.conv1d_x", "mixer.conv1d_z"),
    "mamba_vision.op.fc_scan": "mixer.x_proj",
    "mamba_vision.op.fc_dt": "mixer.dt_proj",
    "mamba_vision.op.proj": "mixer.out_proj",
    "mamba_vision.scale": "gamma_1",
    "attention.norm": "norm1",
    "attention.op.qkv": "mixer.qkv",
    "attention.op.proj": "mixer.proj",
    "attention.scale": "gamma_1",
    "mlp.norm": "norm2",
    "mlp.op.fc1": "mlp.fc1",
    "mlp.op.fc2": "mlp.fc2",
    "mlp.scale": "gamma_2",
}
_ROWS = {
    "stem.{i}": "patch_embed.conv_down.{i}",
    "stages.{s}.downsample.0": "levels.{s-1}.downsample.reduction.0",
    **in_layers(_LAYER, "levels.{s}.blocks.{l}"),
    "out_norms.{s}": "outnorm{s}",
    "head.norm": "norm",
    "head.fc": "head",
}

_MARKS = {"patch_embed.conv_down.0.weight", "levels.0.blocks.0.conv1.weight"}

MAMBAVISION = register(Family("mambavision", lambda keys: keys >= _MARKS, by_table(_ROWS)))

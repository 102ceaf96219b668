"""MambaVision's official layout (github NVlabs/MambaVision)."""

from __future__ import annotations

import re

from blockforge.weights.official import Family, register

_LAYER = {
    "conv_block.op.0": ("conv1",),
    "conv_block.op.1": ("norm1",),
    "conv_block.op.3": ("conv2",),
    "conv_block.op.4": ("norm2",),
    "mamba_vision.norm": ("norm1",),
    "mamba_vision.op": ("mixer",),
    "mamba_vision.op.fc": ("mixer.in_proj",),
    "mamba_vision.op.conv": ("mixer.conv1d_x", "mixer.conv1d_z"),
    "mamba_vision.op.fc_scan": ("mixer.x_proj",),
    "mamba_vision.op.fc_dt": ("mixer.dt_proj",),
    "mamba_vision.op.proj": ("mixer.out_proj",),
    "attention.norm": ("norm1",),
    "attention.op.qkv": ("mixer.qkv",),
    "attention.op.proj": ("mixer.proj",),
    "mlp.norm": ("norm2",),
    "mlp.op.fc1": ("mlp.fc1",),
    "mlp.op.fc2": ("mlp.fc2",),
}
_SCALE = {"conv_block": "gamma", "mamba_vision": "gamma_1", "attention": "gamma_1", "mlp": "gamma_2"}
_OTHER = {"head.norm": "norm", "head.fc": "head"}


def _sources(key: str) -> tuple[str, ...] | None:
    """Our key -> official keys."""
    owner, _, leaf = key.rpartition(".")
    if owner in _OTHER:
        return (f"{_OTHER[owner]}.{leaf}",)
    if match := re.fullmatch(r"stem\.(\d)", owner):
        return (f"patch_embed.conv_down.{match[1]}.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.downsample\.0", owner):
        return (f"levels.{int(match[1]) - 1}.downsample.reduction.0.{leaf}",)
    if match := re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.(.+)", owner):
        block = f"levels.{match[1]}.blocks.{match[2]}"
        if leaf == "scale" and match[3] in _SCALE:
            return (f"{block}.{_SCALE[match[3]]}",)
        return tuple(f"{block}.{name}.{leaf}" for name in _LAYER.get(match[3], ())) or None
    return None


_MARKS = {"patch_embed.conv_down.0.weight", "levels.0.blocks.0.conv1.weight"}

MAMBAVISION = register(Family("mambavision", lambda keys: keys >= _MARKS, _sources))

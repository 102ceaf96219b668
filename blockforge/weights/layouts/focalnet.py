"""FocalNet's layouts: official (github microsoft/FocalNet) and timm's."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers


def _rows(stem: str, stage: str, norm: str, scale: str, head: str) -> dict[str, Names]:
    """Both layouts differ in a few names, and in the stage that a downsample belongs to."""
    layer = {
        "focal_modulation.norm": "norm1",
        "focal_modulation.scale": scale.format(1),
        "focal_modulation.op.fc": "modulation.f",
        "focal_modulation.op.convs.{k}": "modulation.focal_layers.{k}.0",
        "focal_modulation.op.modulator": "modulation.h",
        "focal_modulation.op.norm": f"modulation.{norm}",
        "focal_modulation.op.proj": "modulation.proj",
        "mlp.norm": "norm2",
        "mlp.scale": scale.format(2),
        "mlp.op.fc1": "mlp.fc1",
        "mlp.op.fc2": "mlp.fc2",
    }
    return {
        "stem.0": f"{stem}.proj",
        "stem.1": f"{stem}.norm",
        "stages.{s}.downsample.1": f"layers.{stage}.downsample.proj",
        "stages.{s}.downsample.2": f"layers.{stage}.downsample.norm",
        **in_layers(layer, "layers.{s}.blocks.{l}"),
        "out_norms.{s}": "norm{s}",
        "head.norm": "norm",
        "head.fc": head,
    }


_OFFICIAL = _rows("patch_embed", "{s-1}", "ln", "gamma_{}", "head")
_TIMM = _rows("stem", "{s}", "norm", "ls{}.gamma", "head.fc")
_MARK = "layers.0.blocks.0.modulation.f.weight"

FOCALNET = register(Family("focalnet", lambda keys: {_MARK, "patch_embed.proj.weight"} <= keys, by_table(_OFFICIAL)))
FOCALNET_TIMM = register(Family("focalnet_timm", lambda keys: {_MARK, "stem.proj.weight"} <= keys, by_table(_TIMM)))

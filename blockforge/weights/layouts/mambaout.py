"""MambaOut's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers

_LAYER: dict[str, Names] = {
    "gated_cnn.norm": "norm",
    "gated_cnn.op.graph.fc": "fc1",
    "gated_cnn.op.graph.seen.dwconv": "conv",
    "gated_cnn.op.linear": "fc2",
}
_ROWS: dict[str, Names] = {
    "stem.conv3": "stem.conv1",
    "stem.ln": "stem.norm1",
    "stem.conv3_2": "stem.conv2",
    "stem.ln_2": "stem.norm2",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "stages.{s}.downsample.conv3": "stages.{s}.downsample.conv",
    "stages.{s}.downsample.ln": "stages.{s}.downsample.norm",
    "head.ln": "head.norm",
    "head.linear": "head.pre_logits.fc",
    "head.ln_2": "head.pre_logits.norm",
    "head.logits": "head.fc",
}

_MARKS = {"stem.norm2.weight", "stages.0.blocks.0.conv.weight", "head.pre_logits.fc.weight"}

MAMBAOUT = register(Family("mambaout", lambda keys: keys >= _MARKS, by_table(_ROWS)))

"""InceptionNeXt's layout (github sail-sg/inceptionnext, timm)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, in_layers

_LAYER = {
    "block.scale": "gamma",
    "block.op.inception.square": "token_mixer.dwconv_hw",
    "block.op.inception.row": "token_mixer.dwconv_w",
    "block.op.inception.column": "token_mixer.dwconv_h",
    "block.op.batch_norm": "norm",
    "block.op.linear": "mlp.fc1",
    "block.op.linear_2": "mlp.fc2",
}
_ROWS = {
    "stem.conv": "stem.0",
    "stem.batch_norm": "stem.1",
    "stages.{s}.downsample.batch_norm": "stages.{s}.downsample.0",
    "stages.{s}.downsample.conv": "stages.{s}.downsample.1",
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.linear": "head.fc1",
    "head.ln": "head.norm",
    "head.logits": "head.fc2",
}

_MARKS = {"stem.0.weight", "stages.0.blocks.0.token_mixer.dwconv_hw.weight"}

INCEPTION_NEXT = register(Family("inception_next", lambda keys: keys >= _MARKS, by_table(_ROWS)))

"""StarNet's layout in timm. A stage's first module is its downsample."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, conv_bn, in_layers

_LAYER = {
    "star.op.dwconv": "dwconv.conv",
    "star.op.batch_norm": "dwconv.bn",
    "star.op.parallel.gate.linear": "f1.conv",
    "star.op.parallel.value": "f2.conv",
    "star.op.linear": "g.conv",
    "star.op.batch_norm_2": "g.bn",
    "star.op.dwconv_2": "dwconv2.conv",
}
_ROWS = {
    **conv_bn("stem", "stem.0.conv", "stem.0.bn"),
    **conv_bn("stages.{s}.downsample", "stages.{s}.0.conv", "stages.{s}.0.bn"),
    **in_layers(_LAYER, "stages.{s}.{l+1}"),
    "head.batch_norm": "norm",
    "head.logits": "head",
}

_MARKS = {"stem.0.conv.weight", "stages.0.1.f1.conv.weight"}

STARNET = register(Family("starnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))

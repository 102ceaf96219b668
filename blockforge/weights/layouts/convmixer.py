"""ConvMixer's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, conv_bn, in_layers

_LAYER = {
    "mix.op.dwconv": "0.fn.0",
    "mix.op.batch_norm": "0.fn.2",
    "point.op.linear": "1",
    "point.op.batch_norm": "3",
}
_ROWS = {
    **conv_bn("stem", "stem.0", "stem.2"),
    **in_layers(_LAYER, "blocks.{l}"),
    "head.logits": "head",
}

_MARKS = {"stem.0.weight", "blocks.0.0.fn.0.weight"}

CONVMIXER = register(Family("convmixer", lambda keys: keys >= _MARKS, by_table(_ROWS)))

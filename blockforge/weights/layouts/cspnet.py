"""The layout of timm's CSPNet with three convolutions a stage (its cs3 networks)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers, numbered

_LAYER: dict[str, Names] = {
    **conv_bn("cross.op.conv_bn", "conv_down.conv", "conv_down.bn"),
    **conv_bn("cross.op.conv_bn_2", "conv_exp.conv", "conv_exp.bn"),
    **numbered("cross.op.split.deep.{b}.dark", "blocks.{{b}}.conv{}.conv", "blocks.{{b}}.conv{}.bn", count=2),
    **conv_bn("cross.op.conv_bn_3", "conv_transition.conv", "conv_transition.bn"),
}
_ROWS: dict[str, Names] = {
    **numbered("stem", "stem.conv{}.conv", "stem.conv{}.bn", count=2),
    **in_layers(_LAYER, "stages.{s}"),
    "head.logits": "head.fc",
}

_MARKS = {"stem.conv1.conv.weight", "stages.0.conv_exp.conv.weight"}

CSPNET = register(Family("cspnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))

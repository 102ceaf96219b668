"""RegNet's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import by_table, conv_bn, in_layers, numbered

_LAYER = {
    **numbered("bottleneck.op.bottleneck", "conv{}.conv", "conv{}.bn"),
    **numbered("y.op.y", "conv{}.conv", "conv{}.bn"),
}
_ROWS = {
    **conv_bn("stem", "stem.conv", "stem.bn"),
    **in_layers(
        {
            **_LAYER,
            "y.op.y.se.chain.linear": "se.fc1",
            "y.op.y.se.chain.linear_2": "se.fc2",
            **conv_bn("y.op.skip", "downsample.conv", "downsample.bn"),
            **conv_bn("bottleneck.op.skip", "downsample.conv", "downsample.bn"),
        },
        "s{s+1}.b{l+1}",
    ),
    "head.logits": "head.fc",
}

_MARKS = {"stem.conv.weight", "s1.b1.conv1.conv.weight"}

REGNET = register(Family("regnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))

"""Layouts of EfficientNets: that of what timm builds as one (MobileNetV2, V3 and V4, and EfficientNet itself), and that
of EfficientNet-Lite's package for torch.

In timm a first block that widens nothing has other names than the rest.
"""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, dwconv_bn, in_layers

_SE = {"se.chain.linear": "se.conv_reduce", "se.chain.linear_2": "se.conv_expand"}
_NARROW: dict[str, Names] = {
    **dwconv_bn("dwconv_bn", "conv_dw", "bn1"),
    **conv_bn("unit_2", "conv_dw", "bn1"),
    **conv_bn("unit_3", "conv_pw", "bn2"),
    **_SE,
    **conv_bn("conv_bn_2", "conv_pw", "bn2"),
}
_WIDE: dict[str, Names] = {
    **conv_bn("unit", "conv_pw", "bn1"),
    **conv_bn("unit_2", "conv_dw", "bn2"),
    **conv_bn("unit_3", "conv_pwl", "bn3"),
    **conv_bn("conv_bn", "conv_pw", "bn1"),
    **dwconv_bn("dwconv_bn", "conv_dw", "bn2"),
    **_SE,
    **conv_bn("conv_bn_2", "conv_pwl", "bn3"),
}
_UIB: dict[str, Names] = {
    **dwconv_bn("dwconv_bn", "dw_start.conv", "dw_start.bn"),
    **conv_bn("conv_bn", "pw_exp.conv", "pw_exp.bn"),
    **dwconv_bn("dwconv_bn_2", "dw_mid.conv", "dw_mid.bn"),
    **conv_bn("conv_bn_2", "pw_proj.conv", "pw_proj.bn"),
}


def _below(places: tuple[str, ...], rows: dict[str, Names]) -> dict[str, Names]:
    return {f"{place}.{ours}": official for place in places for ours, official in rows.items()}


_LITE = "lite.op.lite"
_INVERTED = ("inverted.op.inverted", "mb.op.inverted", _LITE)
_LAYER: dict[str, Names] = {
    **_below(_INVERTED, _WIDE),
    **_below(("uib.op", "ib.op", "ib2.op"), _UIB),
    **conv_bn("conv_bn.op", "conv", "bn1"),
    **conv_bn("conv3.op", "conv", "bn1"),
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem", "conv_stem", "bn1"),
    **{f"stages.0.layers.{{l}}.{ours}": f"blocks.0.{{l}}.{name}" for ours, name in _below(_INVERTED, _NARROW).items()},
    **in_layers(_LAYER, "blocks.{s}.{l}"),
    **conv_bn("head.conv_bn", "conv_head", "bn2"),
    **conv_bn("head.unit", "conv_head", "bn2"),
    "head.linear": "conv_head",
    "head.logits": "classifier",
}
_PACKAGE: dict[str, Names] = {
    **conv_bn("stem", "_conv_stem", "_bn0"),
    **in_layers(
        {
            **conv_bn(f"{_LITE}.unit", "_expand_conv", "_bn0"),
            **conv_bn(f"{_LITE}.unit_2", "_depthwise_conv", "_bn1"),
            **conv_bn(f"{_LITE}.unit_3", "_project_conv", "_bn2"),
        },
        "_blocks.{s}.{l}",
    ),
    **conv_bn("head.unit", "_conv_head", "_bn1"),
    "head.logits": "_fc",
}


def _by_stages(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The package counts all blocks through. A stage ends where the width changes."""
    places: dict[str, str] = {}
    stage, layer, width = -1, 0, 0
    while (last := state.get(f"_blocks.{len(places)}._project_conv.weight")) is not None:
        stage, layer = (stage, layer + 1) if last.shape[0] == width else (stage + 1, 0)
        width = last.shape[0]
        places[str(len(places))] = f"{stage}.{layer}"
    return {re.sub(r"^_blocks\.(\d+)", lambda m: f"_blocks.{places.get(m[1], m[1])}", k): v for k, v in state.items()}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The norm of V4's head has a name of its own."""
    return {key.replace("norm_head.", "bn2."): value for key, value in state.items()}


def _matches(keys: set[str]) -> bool:
    first = "blocks.1.0.conv_pwl.weight" in keys or "blocks.2.0.pw_exp.conv.weight" in keys
    return first and "conv_stem.weight" in keys


EFFICIENTNET = register(Family("efficientnet", _matches, by_table(_ROWS), _prepare))
EFFICIENTNET_LITE = register(
    Family(
        "efficientnet_lite",
        lambda keys: keys >= {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight"},
        by_table(_PACKAGE),
        _by_stages,
    )
)

"""MobileNetV2's layout in timm. Its first block has no expansion, and other names."""

from __future__ import annotations

from blockforge.weights.layouts.tensor_names import by_table, conv_bn
from blockforge.weights.official import Family, register

_BLOCK = "stages.{s}.layers.{l}.inverted.op.inverted"
_FIRST = _BLOCK.format(s="0", l="{l}")
_ROWS = {
    **conv_bn("stem", "conv_stem", "bn1"),
    f"{_FIRST}.dwconv_bn.dwconv": "blocks.0.{l}.conv_dw",
    f"{_FIRST}.dwconv_bn.batch_norm": "blocks.0.{l}.bn1",
    **conv_bn(f"{_FIRST}.conv_bn_2", "blocks.0.{l}.conv_pw", "blocks.0.{l}.bn2"),
    **conv_bn(f"{_BLOCK}.conv_bn", "blocks.{s}.{l}.conv_pw", "blocks.{s}.{l}.bn1"),
    f"{_BLOCK}.dwconv_bn.dwconv": "blocks.{s}.{l}.conv_dw",
    f"{_BLOCK}.dwconv_bn.batch_norm": "blocks.{s}.{l}.bn2",
    **conv_bn(f"{_BLOCK}.conv_bn_2", "blocks.{s}.{l}.conv_pwl", "blocks.{s}.{l}.bn3"),
    **conv_bn("head.conv_bn", "conv_head", "bn2"),
    "head.logits": "classifier",
}

_MARKS = {"conv_stem.weight", "blocks.1.0.conv_pwl.weight"}

MOBILENET_V2 = register(Family("mobilenet_v2", lambda keys: keys >= _MARKS, by_table(_ROWS)))

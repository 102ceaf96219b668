"""EfficientViT's layout in timm (the one of MIT)."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, dwconv_bn, in_layers

_LAYER: dict[str, Names] = {
    "local.op.conv": "main.inverted_conv.conv",
    "local.op.batch_norm": "main.inverted_conv.norm",
    "local.op.dwconv": "main.depth_conv.conv",
    "local.op.batch_norm_2": "main.depth_conv.norm",
    **conv_bn("local.op.conv_bn", "main.point_conv.conv", "main.point_conv.norm"),
    "context.op.linear": "context_module.main.qkv.conv",
    "context.op.parallel.far.dwconv": "context_module.main.aggreg.0.0",
    "context.op.parallel.far.conv": "context_module.main.aggreg.0.1",
    **conv_bn("context.op.conv_bn", "context_module.main.proj.conv", "context_module.main.proj.norm"),
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem.conv_bn", "stem.in_conv.conv", "stem.in_conv.norm"),
    **dwconv_bn("stem.residual.dwconv_bn", "stem.res0.main.depth_conv.conv", "stem.res0.main.depth_conv.norm"),
    **conv_bn("stem.residual.conv_bn", "stem.res0.main.point_conv.conv", "stem.res0.main.point_conv.norm"),
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    **conv_bn("head.conv_bn", "head.in_conv.conv", "head.in_conv.norm"),
    "head.linear": "head.classifier.0",
    "head.layer_norm": "head.classifier.1",
    "head.logits": "head.classifier.4",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What is beside attention is called as it is where there is none."""
    return {key.replace(".local_module.main.", ".main."): value for key, value in state.items()}


_MARKS = {"stem.in_conv.conv.weight", "stages.0.blocks.0.main.inverted_conv.conv.weight"}

EFFICIENTVIT = register(Family("efficientvit", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

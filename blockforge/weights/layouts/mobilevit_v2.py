"""MobileViT v2's layout in timm."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, dwconv_bn, in_layers

_VIT, _STEP = "vit.op", "vit.op.repeat.{t}"
_LAYER: dict[str, Names] = {
    **conv_bn("mb.op.conv_bn", "conv1_1x1.conv", "conv1_1x1.bn"),
    **dwconv_bn("mb.op.dwconv_bn", "conv2_kxk.conv", "conv2_kxk.bn"),
    **conv_bn("mb.op.conv_bn_2", "conv3_1x1.conv", "conv3_1x1.bn"),
    **dwconv_bn(f"{_VIT}.dwconv_bn", "conv_kxk.conv", "conv_kxk.bn"),
    f"{_VIT}.conv": "conv_1x1",
    f"{_STEP}.residual.norm": "transformer.{t}.norm1",
    f"{_STEP}.residual.tiles.separable_attention.linear": "transformer.{t}.attn.qkv_proj",
    f"{_STEP}.residual.tiles.separable_attention.linear_2": "transformer.{t}.attn.out_proj",
    f"{_STEP}.residual_2.norm": "transformer.{t}.norm2",
    f"{_STEP}.residual_2.mlp.fc1": "transformer.{t}.mlp.fc1",
    f"{_STEP}.residual_2.mlp.fc2": "transformer.{t}.mlp.fc2",
    f"{_VIT}.group_norm": "norm",
    **conv_bn(f"{_VIT}.conv_bn", "conv_proj.conv", "conv_proj.bn"),
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem", "stem.conv", "stem.bn"),
    **in_layers(_LAYER, "stages.{s}.{l}"),
    "head.logits": "head.fc",
}

_MARKS = {"stages.2.1.conv_kxk.conv.weight", "stages.2.1.transformer.0.attn.qkv_proj.weight"}

MOBILEVIT_V2 = register(Family("mobilevit_v2", lambda keys: keys >= _MARKS, by_table(_ROWS)))

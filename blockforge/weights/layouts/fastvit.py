"""FastViT's layout in timm, in the form that is trained."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.rep_blocks import rep
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers

_LAYER: dict[str, Names] = {
    "rep_mixer.scale": "token_mixer.layer_scale.gamma",
    **rep("rep_mixer.op.mixed", "token_mixer.mixer."),
    "rep_mixer.op.plain": "token_mixer.norm.identity",
    "conv_ffn.scale": "layer_scale.gamma",
    "conv_ffn.op.dwconv": "mlp.conv.conv",
    "conv_ffn.op.batch_norm": "mlp.conv.bn",
    "conv_ffn.op.linear": "mlp.fc1",
    "conv_ffn.op.linear_2": "mlp.fc2",
}
_DOWN = "stages.{s}.downsample"
_ROWS: dict[str, Names] = {
    **rep("stem.rep", "stem.0."),
    **rep("stem.rep_2", "stem.1."),
    **rep("stem.rep_3", "stem.2."),
    **conv_bn(f"{_DOWN}.parallel.large", f"{_DOWN}.proj.0.large_conv.conv", f"{_DOWN}.proj.0.large_conv.bn"),
    **conv_bn(f"{_DOWN}.parallel.small", f"{_DOWN}.proj.0.small_conv.conv", f"{_DOWN}.proj.0.small_conv.bn"),
    **rep(f"{_DOWN}.rep", f"{_DOWN}.proj.1."),
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    **rep("head.rep", "final_conv."),
    "head.rep.se.chain.linear": "final_conv.se.fc1",
    "head.rep.se.chain.linear_2": "final_conv.se.fc2",
    "head.logits": "head.fc",
}

_MARKS = {"stem.0.conv_kxk.0.conv.weight", "stages.0.blocks.0.token_mixer.mixer.identity.weight"}

FASTVIT = register(Family("fastvit", lambda keys: keys >= _MARKS, by_table(_ROWS)))

"""RepViT's layout in timm, in the form that is trained."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers


def _rep_dw(ours: str, official: str) -> dict[str, Names]:
    return {
        f"{ours}.parallel.conv.dwconv": f"{official}.conv.c",
        f"{ours}.parallel.conv.batch_norm": f"{official}.conv.bn",
        f"{ours}.parallel.point": f"{official}.conv1",
        f"{ours}.batch_norm": f"{official}.bn",
    }


def _ffn(ours: str, official: str) -> dict[str, Names]:
    first = conv_bn(f"{ours}.conv_bn", f"{official}.conv1.c", f"{official}.conv1.bn")
    return {**first, **conv_bn(f"{ours}.conv_bn_2", f"{official}.conv2.c", f"{official}.conv2.bn")}


_LAYER: dict[str, Names] = {
    **_rep_dw("rep_dw.op", "token_mixer"),
    "se.op.chain.linear": "se.fc1",
    "se.op.chain.linear_2": "se.fc2",
    **_ffn("ffn.op", "channel_mixer"),
}
_DOWN = "stages.{s}.downsample"
_ROWS: dict[str, Names] = {
    **conv_bn("stem.conv_bn", "stem.conv1.c", "stem.conv1.bn"),
    **conv_bn("stem.conv_bn_2", "stem.conv2.c", "stem.conv2.bn"),
    **_rep_dw(f"{_DOWN}.rep_dw", f"{_DOWN}.pre_block.token_mixer"),
    **_ffn(f"{_DOWN}.residual.ffn", f"{_DOWN}.pre_block.channel_mixer"),
    f"{_DOWN}.dwconv_bn.dwconv": f"{_DOWN}.spatial_downsample.c",
    f"{_DOWN}.dwconv_bn.batch_norm": f"{_DOWN}.spatial_downsample.bn",
    **conv_bn(f"{_DOWN}.conv_bn", f"{_DOWN}.channel_downsample.c", f"{_DOWN}.channel_downsample.bn"),
    **_ffn(f"{_DOWN}.residual_2.ffn", f"{_DOWN}.ffn"),
    **in_layers(_LAYER, "stages.{s}.blocks.{l}"),
    "head.parallel.own.batch_norm": "head.head.bn",
    "head.parallel.own.logits": "head.head.l",
    "head.parallel.teacher.batch_norm": "head.head_dist.bn",
    "head.parallel.teacher.logits": "head.head_dist.l",
}

_MARKS = {"stem.conv1.c.weight", "stages.0.blocks.0.token_mixer.conv1.weight"}

REPVIT = register(Family("repvit", lambda keys: keys >= _MARKS, by_table(_ROWS)))

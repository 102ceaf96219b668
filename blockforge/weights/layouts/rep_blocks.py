"""Layouts of blocks that are trained as convolutions side by side: RepVGG's and MobileOne's in timm."""

from __future__ import annotations

import re

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers


def rep(ours: str, official: str, kernel: str = "conv_kxk.0", point: str = "conv_scale") -> dict[str, Names]:
    """Rows for such a block. Its official name ends with a dot, or is empty."""
    return {
        f"{ours}.parallel.keep": f"{official}identity",
        **conv_bn(f"{ours}.parallel.conv", f"{official}{kernel}.conv", f"{official}{kernel}.bn"),
        **conv_bn(f"{ours}.parallel.point", f"{official}{point}.conv", f"{official}{point}.bn"),
    }


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer of MobileOne is two such blocks, which timm counts one by one."""
    return {re.sub(r"^(stages\.\d+)\.(\d+)\.", _in_pairs, key): value for key, value in state.items()}


def _in_pairs(match: re.Match[str]) -> str:
    layer, half = divmod(int(match[2]), 2)
    return f"{match[1]}.{layer}.{half}."


_REPVGG_ROWS: dict[str, Names] = {
    **rep("stem", "stem.", "conv_kxk", "conv_1x1"),
    **in_layers(rep("rep.op", "", "conv_kxk", "conv_1x1"), "stages.{s}.{l}"),
    "head.logits": "head.fc",
}
_MOBILEONE_ROWS: dict[str, Names] = {
    **rep("stem", "stem."),
    **in_layers({**rep("one.op.rep", "0."), **rep("one.op.rep_2", "1.")}, "stages.{s}.{l}"),
    "head.logits": "head.fc",
}
_REPVGG = {"stem.conv_1x1.conv.weight", "stages.0.0.conv_kxk.conv.weight"}
_MOBILEONE = {"stem.conv_kxk.0.conv.weight", "stages.0.0.conv_kxk.0.conv.weight"}

REPVGG = register(Family("repvgg", lambda keys: keys >= _REPVGG, by_table(_REPVGG_ROWS)))
MOBILEONE = register(Family("mobileone", lambda keys: keys >= _MOBILEONE, by_table(_MOBILEONE_ROWS), _prepare))

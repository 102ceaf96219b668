"""The layout of dual path networks in timm."""

from __future__ import annotations

from torch import Tensor

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, in_layers


def _pre(ours: str, official: str) -> dict[str, Names]:
    return {f"{ours}.batch_norm": f"{official}.bn", f"{ours}.conv": f"{official}.conv"}


_LAYER: dict[str, Names] = {
    **_pre("dual.op.old.pre", "c1x1_w"),
    **_pre("dual.op.new.pre", "c1x1_a"),
    **_pre("dual.op.new.pre_2", "c3x3_b"),
    **_pre("dual.op.new.pre_3", "c1x1_c"),
}
_ROWS: dict[str, Names] = {
    "stem.conv": "features.conv1_1.conv",
    "stem.batch_norm": "features.conv1_1.bn",
    **in_layers(_LAYER, "features.conv{s+2}_{l+1}"),
    "head.batch_norm": "features.conv5_bn_ac.bn",
    "head.logits": "classifier",
}


def _prepare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A projection is called by its stride, too."""
    return {k.replace(".c1x1_w_s1.", ".c1x1_w.").replace(".c1x1_w_s2.", ".c1x1_w."): v for k, v in state.items()}


_MARKS = {"features.conv1_1.conv.weight", "features.conv2_1.c1x1_a.conv.weight"}

DPN = register(Family("dpn", lambda keys: keys >= _MARKS, by_table(_ROWS), _prepare))

"""GhostNet's layout (official code, timm)."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, dwconv_bn, in_layers


def _ghost(ours: str, official: str) -> dict[str, Names]:
    first = conv_bn(f"{ours}.conv_bn", f"{official}.primary_conv.0", f"{official}.primary_conv.1")
    cheap = f"{official}.cheap_operation"
    return {**first, **dwconv_bn(f"{ours}.parallel.ghosts", f"{cheap}.0", f"{cheap}.1")}


_LAYER: dict[str, Names] = {
    **_ghost("g.op.ghost", "ghost1"),
    **dwconv_bn("g.op.dwconv_bn", "conv_dw", "bn_dw"),
    "g.op.se.chain.linear": "se.conv_reduce",
    "g.op.se.chain.linear_2": "se.conv_expand",
    **_ghost("g.op.ghost_2", "ghost2"),
    **dwconv_bn("g.op.skip.dwconv_bn", "shortcut.0", "shortcut.1"),
    **conv_bn("g.op.skip.conv_bn", "shortcut.2", "shortcut.3"),
    **conv_bn("conv_bn.op", "conv", "bn1"),
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem", "conv_stem", "bn1"),
    **in_layers(_LAYER, "blocks.{s}.{l}"),
    "head.linear": "conv_head",
    "head.logits": "classifier",
}

_MARKS = {"conv_stem.weight", "blocks.0.0.ghost1.primary_conv.0.weight"}

GHOSTNET = register(Family("ghostnet", lambda keys: keys >= _MARKS, by_table(_ROWS)))

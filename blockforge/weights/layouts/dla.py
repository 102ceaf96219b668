"""DLA's layout in timm. The first two levels are plain."""

from __future__ import annotations

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import Names, by_table, conv_bn, in_layers, numbered


def _tree(ours: str, official: str = "") -> dict[str, Names]:
    """Rows for two blocks and their root. An official name that is not empty ends with a dot."""
    return {
        **numbered(f"{ours}.a.basic", f"{official}tree1.conv{{}}", f"{official}tree1.bn{{}}", count=2),
        **conv_bn(f"{ours}.a.skip.conv_bn", f"{official}project.0", f"{official}project.1"),
        **numbered(f"{ours}.b.basic", f"{official}tree2.conv{{}}", f"{official}tree2.bn{{}}", count=2),
        **conv_bn(f"{ours}.root", f"{official}root.conv", f"{official}root.bn"),
    }


_LAYER: dict[str, Names] = {
    **conv_bn("conv_bn.op", "0", "1"),
    **_tree("tree.op"),
    **_tree("trees.op.first", "tree1."),
    **_tree("trees.op", "tree2."),
}
_ROWS: dict[str, Names] = {
    **conv_bn("stem", "base_layer.0", "base_layer.1"),
    **in_layers(_LAYER, "level{s}"),
    "head.logits": "fc",
}

_MARKS = {"base_layer.0.weight", "level2.tree1.conv1.weight"}

DLA = register(Family("dla", lambda keys: keys >= _MARKS, by_table(_ROWS)))

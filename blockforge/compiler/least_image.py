"""The smallest image that a network makes something of."""

from __future__ import annotations

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import (
    BlockSite,
    BranchSite,
    EdgeSite,
    HeadSite,
    ReducingSite,
    SkipSite,
    WindowInSite,
    WindowOutSite,
)
from blockforge.errors import OpError

_SIDES = (0, 1)
_ENOUGH = 2**20
"""Of rows: more than anybody needs."""


def least_image(nodes: dict[str, Node]) -> tuple[int, int]:
    """Height and width of the smallest image of which every stem, downsample, edge, branch and head leaves something.
    Inside windows maps have the sides of these."""
    height, width = (_least(nodes, side) for side in _SIDES)
    return height, width


def _least(nodes: dict[str, Node], axis: int) -> int:
    needed, in_windows = dict.fromkeys(nodes, 1), False
    for node in reversed(nodes.values()):
        site, side = node.site, needed[node.name]
        in_windows = (in_windows or isinstance(site, WindowOutSite)) and not isinstance(site, WindowInSite)
        if isinstance(site, ReducingSite | EdgeSite | BranchSite | HeadSite) and not in_windows:
            side = _needed(node, side, axis)
        for source in () if isinstance(site, SkipSite) else site.inputs:
            needed[source] = max(needed[source], side)
    return next(iter(needed.values()))


def _needed(node: Node, least: int, axis: int) -> int:
    """How long a side a block must read to give one of `least`; what makes maps smaller reads no shorter one."""
    read = node.shapes.in_shape[axis]
    side = least if node.out_shape[axis] <= read else 1
    while side < max(read, least) and _side_from(node, side, axis) < least:
        side += 1
    return side


def _side_from(node: Node, side: int, axis: int) -> int:
    """A side of what a block gives of a map with this one; where it cannot stand for another reason than too small a
    map, enough of it."""
    site, program = node.site, node.program
    assert isinstance(site, BlockSite)
    read = node.shapes.in_shape
    shape = read._replace(height=side) if axis == 0 else read._replace(width=side)
    try:
        if program is None or any(step.tiles > 1 for step in program.steps):
            return site.at(shape, ()).out_shape()[axis]
        return program.shape_on(shape)[axis]  # with the sizes in it that were computed for its own map
    except OpError as e:
        return 0 if e.code == "map-too-small" else _ENOUGH

"""Costs: parameters, multiply-adds and activation memory of every node, from the blocks' own rules.

What a block holds may depend on the backend that runs it: costs are of one that is named, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from blockforge.blocks.base import Cost, Placed, Scratch, Shape
from blockforge.compiler.graph.facts import Facts, facts
from blockforge.compiler.graph.nodes import Costs, Node, Shapes
from blockforge.compiler.graph.sites import BranchSite, ImageSite, NormedSite, Site, WindowInSite, WindowOutSite
from blockforge.kernels.costs import DEFAULT

BYTES = 4
"""Of a float32."""


class _Held(NamedTuple):
    """A node's cost, the elements that live inside it at most, and those of them that live beside its block's own."""

    cost: Cost
    workspace: int
    beside: int = 0


def priced(sites: Iterable[Site], shapes: Mapping[str, Shapes], backend: str = DEFAULT) -> dict[str, Node]:
    """The nodes of a network by name, with their costs on a backend, one of `kernels.costs.COSTED`."""
    found = {}
    for site in sites:
        source = shapes[site.inputs[0]] if site.inputs else None
        found[site.name] = Node(site, shapes[site.name], _costs(site, shapes[site.name], source, backend))
    return found


def _costs(site: Site, shapes: Shapes, source: Shapes | None, backend: str) -> Costs:
    """`source`: the maps of the node that it reads first; the image reads none."""
    if isinstance(site, ImageSite):
        is_view = shapes.out_shape.dim == 1  # any layout of a single channel is channels-last
        copied = 0 if is_view else shapes.out_shape.elements * BYTES
        return Costs(0, 0, 0, copied, copied, ())
    assert source is not None
    held = _held(site, shapes, source, backend)
    cost, windows = held.cost, shapes.windows
    scratch = tuple((s, _below(s, held.workspace - held.beside) * windows * BYTES) for s in cost.scratch)
    return Costs(
        cost.params, cost.macs * windows, cost.scan * windows, shapes.out_shape.elements * windows * BYTES,
        held.workspace * windows * BYTES, scratch,
    )  # fmt: skip


def _held(site: Site, shapes: Shapes, source: Shapes, backend: str) -> _Held:
    if isinstance(site, WindowInSite):
        return _tiled(shapes, tiles=shapes, whole=shapes.in_shape)
    if isinstance(site, WindowOutSite):
        return _tiled(shapes, tiles=source, whole=shapes.out_shape)
    if shapes.placed is None:
        return _Held(Cost(), shapes.out_shape.elements)
    found = facts(shapes.placed, backend)
    if isinstance(site, NormedSite):
        return _in_layer(site, shapes.in_shape, found, backend)
    if shapes.in_shape == source.out_shape:
        return _Held(found.cost, found.workspace)
    fitted = shapes.in_shape.elements  # a long skip's map, padded or cut: what it was made of ends before the block
    return _Held(found.cost, fitted + max(0, found.workspace - source.out_shape.elements), fitted)


def _tiled(shapes: Shapes, tiles: Shapes, whole: Shape) -> _Held:
    """Tiles that stick out of the map cost a second copy: padded on entry, cropped on exit."""
    out, padded = shapes.out_shape.elements, tiles.out_shape.elements * tiles.windows
    return _Held(Cost(), out + (padded // shapes.windows if padded != whole.elements else 0))


def _in_layer(site: NormedSite, shape: Shape, found: Facts, backend: str) -> _Held:
    """Norm and block; in a branch scale and sum, too."""
    cost, workspace, out, beside = found.cost, found.workspace, found.out_shape, 0
    if site.norm is not None:
        norm = facts(Placed(site.norm, (shape,)), backend)
        cost += norm.cost
        beside = shape.elements  # the block's input lives as long as it runs
        workspace = max(norm.workspace, beside + workspace)
    if isinstance(site, BranchSite):
        cost += site.residual.cost(out.dim, out.elements)
        added = site.residual.elements(
            out.elements, normed=site.norm is not None, fed=len(site.inputs) > 1,
            in_one_pass=site.block.residual, gives_input_back=found.workspace == 0,
        )  # fmt: skip
        workspace = max(workspace, added)
    return _Held(cost, workspace, beside)


def _below(scratch: Scratch, workspace: int) -> int:
    """Elements that are not alive of a block's workspace while an operation holds something for itself."""
    return max(0, workspace - scratch.alive) if scratch.alive is not None else 0

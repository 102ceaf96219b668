"""Costs: parameters, multiply-adds and activation memory of every node, from the blocks' own rules.

What a block holds may depend on the backend that runs it: costs are of one that is named, the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from blockforge.blocks.base import AnyPlaced, Cost, MapOp, Norm, Placed, Scratch, Shape
from blockforge.blocks.compose.norm import norm_on
from blockforge.blocks.facts import facts
from blockforge.compiler.graph.branch_keys import Residual
from blockforge.compiler.graph.nodes import Costs, Node, Shapes
from blockforge.compiler.graph.sites import BranchSite, NormedSite, Site, WindowInSite, WindowOutSite
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
    nodes = {}
    for site in sites:
        source = shapes[site.inputs[0]] if site.inputs else None
        nodes[site.name] = Node(site, shapes[site.name], _costs(site, shapes[site.name], source, backend))
    return nodes


def _costs(site: Site, shapes: Shapes, source: Shapes | None, backend: str) -> Costs:
    """`source`: the maps of the node that it reads first; the image reads none."""
    out, windows = shapes.out_shape, shapes.windows
    if source is None:
        copied = 0 if out.dim == 1 else out.elements * BYTES  # any layout of a single channel is channels-last
        return Costs(0, 0, 0, copied, copied, ())
    if isinstance(site, WindowInSite):
        return _costs_of(_tiled(shapes, tiles=shapes, whole=shapes.in_shape), out, windows)
    if isinstance(site, WindowOutSite):
        return _costs_of(_tiled(shapes, tiles=source, whole=out), out, windows)
    if shapes.placed is None:
        return _costs_of(_Held(Cost(), out.elements), out, windows)
    if isinstance(site, NormedSite):
        residual = site.residual if isinstance(site, BranchSite) else None
        norm, fed = norm_on(site.norm, shapes.in_shape), len(site.inputs) > 1
        return _in_layer(shapes.placed, norm, residual, fed, shapes.in_shape, windows, backend)
    return _alone(shapes.placed, shapes.in_shape, source.out_shape, windows, backend)


def _costs_of(held: _Held, out: Shape, windows: int) -> Costs:
    """Of all windows, in bytes."""
    cost = held.cost
    scratch = tuple((s, _below(s, held.workspace - held.beside) * windows * BYTES) for s in cost.scratch)
    activation_bytes, workspace_bytes = out.elements * windows * BYTES, held.workspace * windows * BYTES
    return Costs(cost.params, cost.macs * windows, cost.scan * windows, activation_bytes, workspace_bytes, scratch)


@functools.lru_cache(16_384)
def _alone(placed: AnyPlaced, shape: Shape, source: Shape, windows: int, backend: str) -> Costs:
    """A block that is a unit of its own and reads a map of `shape`, for which it is given one of `source`."""
    block_facts = facts(placed, backend)
    if shape == source:
        return _costs_of(_Held(block_facts.cost, block_facts.workspace), block_facts.out_shape, windows)
    fitted = shape.elements  # a long skip's map, padded or cut: what it was made of ends before the block
    workspace = fitted + max(0, block_facts.workspace - source.elements)
    return _costs_of(_Held(block_facts.cost, workspace, fitted), block_facts.out_shape, windows)


@functools.lru_cache(16_384)
def _in_layer(
    placed: AnyPlaced, norm: Norm | None, residual: Residual | None, fed: bool, shape: Shape, windows: int, backend: str
) -> Costs:
    """Norm and block; of a branch scale and sum, too. Most layers of a stage are alike: they are priced once."""
    block_facts = facts(placed, backend)
    cost, workspace, out, beside = block_facts.cost, block_facts.workspace, block_facts.out_shape, 0
    if norm is not None:
        before = facts(Placed(norm, (shape,)), backend)
        cost += before.cost
        beside = shape.elements  # the block's input lives as long as it runs
        workspace = max(before.workspace, beside + workspace)
    if residual is not None:
        cost += residual.cost(out.row)
        added = residual.elements(
            out.row, normed=norm is not None, fed=fed,
            in_one_pass=isinstance(placed.op, MapOp) and placed.op.residual,
            gives_input_back=block_facts.workspace == 0,
        )  # fmt: skip
        workspace = max(workspace, added)
    return _costs_of(_Held(cost, workspace, beside), out, windows)


def _tiled(shapes: Shapes, tiles: Shapes, whole: Shape) -> _Held:
    """Tiles that stick out of the map cost a second copy: padded on entry, cropped on exit."""
    out, padded = shapes.out_shape.elements, tiles.out_shape.elements * tiles.windows
    return _Held(Cost(), out + (padded // shapes.windows if padded != whole.elements else 0))


def _below(scratch: Scratch, workspace: int) -> int:
    """Elements that are not alive of a block's workspace while an operation holds something for itself."""
    return max(0, workspace - scratch.alive) if scratch.alive is not None else 0

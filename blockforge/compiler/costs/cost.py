"""Costs: parameters, multiply-adds and activation memory of every node, from the blocks' own rules.

Adds to each node: `params`, `macs` and `scan` (see `blocks.base.Cost`), `activation_bytes` (its output, one
image, float32), `workspace_bytes` (the most that lives inside it, its output included) and `scratch` (pairs: what an
operation holds beside that, and how many bytes of it do not live then). What a block holds may depend on the backend
that runs it: costs are of one that is named, the same on every machine.
"""

from __future__ import annotations

from typing import Any

import networkx as nx

from blockforge.blocks.base import Cost, Scratch
from blockforge.compiler.graph.infer import facts
from blockforge.kernels.costs import DEFAULT

BYTES = 4
"""Of a float32."""


def add_costs(graph: nx.DiGraph, backend: str = DEFAULT) -> None:
    """Fill in the costs of a graph with shapes. `backend`: one of `kernels.costs.COSTED`."""
    for node in graph.nodes.values():
        is_branch = node["kind"] in ("mixer", "ffn", "aggregator")
        cost, workspace, beside = _branch(node, backend) if is_branch else _single(node, graph, backend)
        windows = node["windows"]
        node["params"], node["macs"], node["scan"] = cost.params, cost.macs * windows, cost.scan * windows
        node["scratch"] = tuple((s, _below(s, workspace - beside) * windows * BYTES) for s in cost.scratch)
        is_view = node["kind"] == "input" and node["out_shape"].dim == 1  # one channel: any layout is channels-last
        node["activation_bytes"] = 0 if is_view else node["out_shape"].elements * windows * BYTES
        node["workspace_bytes"] = 0 if is_view else workspace * windows * BYTES


def _below(scratch: Scratch, workspace: int) -> int:
    """Elements that are not alive of a block's workspace while an operation holds something for itself."""
    return max(0, workspace - scratch.alive) if scratch.alive is not None else 0


def _single(node: dict[str, Any], graph: nx.DiGraph, backend: str) -> tuple[Cost, int, int]:
    """A node that is one block, or only moves data: its cost, its workspace, what lives beside the block's own."""
    if node["impl"] is not None:
        found, source = facts(node["impl"], node["place"], backend), graph.nodes[node["inputs"][0]]["out_shape"]
        if node["in_shape"] == source:
            return found.cost, found.workspace, 0
        fitted = node[
            "in_shape"
        ].elements  # a long skip's map, padded or cut: what it was made of ends before the block
        return found.cost, fitted + max(0, found.workspace - source.elements), fitted
    out = node["out_shape"].elements
    if "window" not in node:
        return Cost(), out, 0
    # Tiles that stick out of the map cost a second copy: padded on entry, cropped on exit.
    tiles = graph.nodes[node["inputs"][0]] if node["kind"] == "window_out" else node
    whole = node["out_shape"] if node["kind"] == "window_out" else node["in_shape"]
    padded = tiles["out_shape"].elements * tiles["windows"]
    return Cost(), out + (padded // node["windows"] if padded != whole.elements else 0), 0


def _branch(node: dict[str, Any], backend: str) -> tuple[Cost, int, int]:
    """Norm, block, scale and residual; an aggregator is norm and block. As `_single`."""
    found = facts(node["impl"], node["place"], backend)
    cost, workspace, out, beside = found.cost, found.workspace, found.out_shape.elements, 0
    if node["norm"] is not None:
        shape = node["in_shape"]
        norm = facts(node["norm"], (shape,), backend)
        cost += norm.cost
        beside = shape.elements  # the block's input lives as long as it runs
        workspace = max(norm.workspace, beside + workspace)
    if node["kind"] == "aggregator":
        return cost, workspace, beside
    if (scale := node["scale"]) is not None:
        dim = found.out_shape.dim
        cost += Cost(dim) if scale.branch is not None else Cost()
        cost += Cost(2 * dim, out) if scale.skip is not None else Cost()
    return cost, max(workspace, residual_elements(node, out, gives_input_back=found.workspace == 0)), beside


def residual_elements(node: dict[str, Any], out: int, gives_input_back: bool) -> int:
    """What lives at once while the branch is scaled and added: it, its scaled form or the sum, the scaled input."""
    scale, acts = node["scale"], node["post_act"] is not None
    plain = node["norm"] is None and (scale is None or scale.branch is None)
    alone = plain and scale is None and node["drop_path"] == 0 and len(node["inputs"]) == 1
    if alone and node["impl"].residual:
        return out * (1 + acts)
    maps = 2 - (plain and gives_input_back) + (scale is not None and scale.skip is not None)
    return out * max(maps, 1 + acts)

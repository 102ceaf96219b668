"""The last pass: what readers of the graph need and the passes did not."""

from __future__ import annotations

import functools
from typing import Any

import networkx as nx

from blockforge.blocks.base import Op
from blockforge.spec.plan import Plan


def finish(graph: nx.DiGraph, plan: Plan) -> None:
    """Name each node's block and its parameters, find its place in the source, give edges their shape."""
    for node in graph.nodes.values():
        impl = node["impl"]
        node["op"] = impl.op if impl is not None else node["kind"]
        node["parameters"] = parameters(impl) if impl is not None else _own(node)
        node["loc"] = plan.locs.value(node["path"])
    for source, _, edge in graph.edges(data=True):
        edge["shape"] = graph.nodes[source]["out_shape"]


@functools.lru_cache(4096)
def parameters(op: Op) -> dict[str, Any]:
    """All parameters of a block, its defaults included. Shared: not to be changed."""
    return op.parameters_dict()


def _own(node: dict[str, Any]) -> dict[str, Any]:
    return {"window": node["window"]} if "window" in node else {}

"""Peak activation memory: which maps live at once when the graph runs in order, in inference.

A map lives from the node that makes it to the last node that reads it. A layer runs as one module, which
holds its arguments until it returns, so what enters a layer lives to the layer's end. The image belongs to
the caller and is not counted; the graph's own channels-last copy of it is.
"""

from __future__ import annotations

from typing import Any

import networkx as nx


def live_bytes(graph: nx.DiGraph) -> dict[str, int]:
    """Node -> most bytes alive at once while it runs, for one float32 image; in execution order."""
    nodes: dict[str, dict[str, Any]] = dict(graph.nodes(data=True))
    order = {name: i for i, name in enumerate(nodes)}
    last_of_layer: dict[tuple[int, int], int] = {}
    for name, node in nodes.items():
        if node["layer"] is not None:
            last_of_layer[node["stage"], node["layer"]] = order[name]
    last_use = dict(order)
    for name, node in nodes.items():
        layer = (node["stage"], node["layer"])
        for source in node["inputs"]:
            from_outside = node["layer"] is not None and (nodes[source]["stage"], nodes[source]["layer"]) != layer
            use = last_of_layer[layer] if from_outside else order[name]
            last_use[source] = max(last_use[source], use)
    return _sweep(nodes, order, last_use)


def peak_bytes(graph: nx.DiGraph, live: dict[str, int], images: int) -> int:
    """Most bytes at once for a batch of float32 images: what is alive, and what an operation holds beside it, whose
    weights do not grow with the batch. `live`: as `live_bytes` gives it."""
    most = 0
    for name, node in graph.nodes.items():
        maps = images * node["windows"]
        most = max(most, images * live[name])
        for scratch, less in node["scratch"]:
            most = max(most, images * (live[name] - less) + scratch.held(maps))
    return most


def _sweep(nodes: dict[str, dict[str, Any]], order: dict[str, int], last_use: dict[str, int]) -> dict[str, int]:
    dies: dict[int, int] = {}
    for name, end in last_use.items():
        dies[end] = dies.get(end, 0) + nodes[name]["activation_bytes"]
    alive, live = 0, {}
    for name, node in nodes.items():
        live[name] = alive + node["workspace_bytes"]
        alive += node["activation_bytes"] - dies.get(order[name], 0)
    return live

"""Peak activation memory: which maps live at once when the graph runs in order, in inference.

A map lives from the node that makes it to the last node that reads it, an output to the end. A layer runs as one
module, which holds its arguments until it returns, so what enters a layer lives to the layer's end. The image belongs
to the caller and is not counted; the graph's own channels-last copy of it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import HeadSite


def live_bytes(nodes: Sequence[Node]) -> dict[str, int]:
    """Node -> most bytes alive at once while it runs, for one float32 image; `nodes` in execution order."""
    last_use, dies = last_uses(nodes), [0] * len(nodes)
    for node in nodes:
        dies[last_use[node.name]] += node.costs.activation_bytes
    alive, live = 0, {}
    for node, freed in zip(nodes, dies, strict=True):
        live[node.name] = alive + node.costs.workspace_bytes
        alive += node.costs.activation_bytes - freed
    return live


def last_uses(nodes: Sequence[Node]) -> dict[str, int]:
    """Node -> the number of the node until which its map lives; `nodes` in execution order."""
    units = {node.name: node.site.unit for node in nodes}
    ends = {node.site.unit: i for i, node in enumerate(nodes)}
    last_use: dict[str, int] = {}
    for i, node in enumerate(nodes):
        last_use[node.name] = len(nodes) - 1 if isinstance(node.site, HeadSite) else i
        for source in node.inputs:
            inside = units[source] == node.site.unit
            last_use[source] = max(last_use[source], i if inside else ends[node.site.unit])
    return last_use


def peak_bytes(nodes: Sequence[Node], live: dict[str, int], images: int) -> int:
    """Most bytes at once for a batch of float32 images: what is alive, and what an operation holds beside it, whose
    weights do not grow with the batch. `live`: as `live_bytes` gives it."""
    most = 0
    for node in nodes:
        maps = images * node.shapes.windows
        most = max(most, images * live[node.name])
        for scratch, less in node.costs.scratch:
            most = max(most, images * (live[node.name] - less) + scratch.held(maps))
    return most

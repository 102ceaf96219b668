"""Architecture -> modules and an fx graph that calls them. The only pass that makes tensors.

One fx node a layer, named after its module's path: `stages_2_layers_5 = self.stages.2.layers.5(...)`. fx
generates Python that drops every map after its last use.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
from torch import fx, nn

from blockforge.blocks.base import Norm, Tokens
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.modules import Branch, Fuse, Layer, WindowIn, WindowOut, image_map
from blockforge.compiler.lowering.out_norms import out_norm_path
from blockforge.compiler.maps import fit_map, least_image, token_map


@dataclass(frozen=True)
class Unit:
    """What one fx node runs: a single graph node, or the nodes of a layer. `inputs` are other units' names."""

    name: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]


def units(graph: nx.DiGraph) -> Iterator[Unit]:
    """The graph's nodes in execution order, those of a layer together."""
    owner: dict[str, str] = {}  # node -> the unit that gives its value
    groups: dict[str, list[str]] = {}
    for name, node in graph.nodes(data=True):
        unit = name if node["layer"] is None else f"stages.{node['stage']}.layers.{node['layer']}"
        owner[name] = unit
        groups.setdefault(unit, []).append(name)
    for unit, members in groups.items():
        first = graph.nodes[members[0]]
        # A layer reads its input and, if it has an aggregator, the sources: these may name the input again.
        main = first["inputs"] if first["layer"] is None else first["inputs"][:1]
        fuse = next((graph.nodes[m] for m in members if graph.nodes[m]["kind"] == "aggregator"), None)
        sources = fuse["inputs"][1:] if fuse is not None else ()
        yield Unit(unit, tuple(members), tuple(owner[i] for i in (*main, *sources)))


def build_modules(arch: Architecture, with_head: bool = True, num_stages: int | None = None) -> dict[str, nn.Module]:
    """Every module of the network by its path, freshly initialised. `num_stages`: only the first ones."""
    graph = arch.graph
    modules = {}
    for unit in units(graph):
        node = graph.nodes[unit.nodes[0]]
        beyond = num_stages is not None and node["stage"] is not None and node["stage"] >= num_stages
        if node["kind"] in ("input", "add") or beyond or (node["kind"] == "head" and not with_head):
            continue
        modules[unit.name] = _module(graph, unit)
    return modules


def emit(
    arch: Architecture,
    maps: Sequence[int] | None = None,
    logits: bool = True,
    features: int | None = None,
    out_norm: Norm | None = None,
) -> fx.Graph:
    """The fx graph of the network.

    Args:
        maps: stages whose maps it returns, as NCHW views; None: it returns a single value.
        logits: without maps: the head's output; else what the head reads, as an NCHW view.
        features: with maps: the stage of which it returns, before the maps, what a later one or the head would read.
        out_norm: with maps: the norm behind each.
    """
    graph = fx.Graph()
    emitted: dict[str, fx.Node] = {}
    stage_ends = _stage_ends(arch.graph)
    last_stage = len(stage_ends) - 1 if maps is None else max([*maps, features or 0])
    for unit in units(arch.graph):
        node = arch.graph.nodes[unit.nodes[0]]
        if (node["stage"] or 0) > last_stage or (node["kind"] == "head" and (maps is not None or not logits)):
            continue
        emitted[unit.name] = _emit_unit(arch.graph, graph, unit, node, emitted)
    ends = arch.stage_ends()
    found = [_map(graph, emitted[stage_ends[i]], ends[i]["tokens"], out_norm, out_norm_path(i)) for i in maps or ()]
    if maps is None:
        graph.output(emitted["head"] if logits else _nchw(graph, emitted[stage_ends[-1]]))
    else:
        graph.output((_nchw(graph, emitted[stage_ends[features]]), found) if features is not None else found)
    for fx_node in reversed(graph.nodes):  # a skip that only leads to stages left out
        if not fx_node.users and fx_node.op not in ("placeholder", "output"):
            graph.erase_node(fx_node)
    graph.lint()
    return graph


def _stage_ends(graph: nx.DiGraph) -> list[str]:
    """The unit that gives each stage's map, its norm included."""
    last: dict[int, str] = {}
    for unit in units(graph):
        node = graph.nodes[unit.nodes[0]]
        if node["stage"] is not None:
            last[node["stage"]] = unit.name
    return [last[i] for i in sorted(last)]


def _emit_unit(
    arch: nx.DiGraph, graph: fx.Graph, unit: Unit, node: dict[str, Any], emitted: dict[str, fx.Node]
) -> fx.Node:
    name = unit.name.replace(".", "_")
    args: tuple[Any, ...] = tuple(emitted[i] for i in unit.inputs)
    if node["kind"] == "input":
        args = (graph.placeholder("x"), node["out_shape"].dim, least_image(arch))
        return graph.create_node("call_function", image_map, args, name="image")
    if node["kind"] == "add":
        return graph.create_node("call_function", operator.add, args, name=name)
    if node["kind"] == "window_out":
        args += _size(graph, node, emitted, name)
    if node["rounding"] is not None:
        args = (*args, *_size(graph, node, emitted, name), node["rounding"])
        args = (graph.create_node("call_function", fit_map, args, name=f"{name}_fitted"),)
    if not is_leaf_on_nchw(node):
        return graph.create_node("call_module", unit.name, args, name=name)
    y = graph.create_node("call_module", unit.name, (_nchw(graph, args[0]),), name=f"{name}_given")
    return graph.create_node("call_method", "permute", (y, 0, 2, 3, 1), name=name)


def _size(graph: fx.Graph, node: dict[str, Any], emitted: dict[str, fx.Node], name: str) -> tuple[fx.Node, ...]:
    """Height and width of the map that a node's is to be like; the map itself need not live until then."""
    like = emitted[_unit_of(node["like"], emitted)]
    with graph.inserting_before(like.next):
        return tuple(graph.create_node("call_method", "size", (like, d), name=f"{name}_{s}") for d, s in _SIDES)


_SIDES = ((1, "height"), (2, "width"))


def _unit_of(name: str, emitted: dict[str, fx.Node]) -> str:
    """The unit that a node belongs to: itself, or its layer."""
    return name if name in emitted else name.rpartition(".")[0]


def _nchw(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.create_node("call_method", "permute", (node, 0, 3, 1, 2), name=f"{node.name}_nchw")


def _map(graph: fx.Graph, node: fx.Node, tokens: Tokens | None, norm: Norm | None, path: str) -> fx.Node:
    """A stage's map, behind its output norm if there is one; of a row of tokens, its patches."""
    if tokens is not None:
        node = graph.create_node("call_function", token_map, (node, *tokens), name=f"{node.name}_map")
    if norm is not None and norm.layout == "NHWC":
        node = graph.create_node("call_module", path, (node,), name=path.replace(".", "_"))
    node = _nchw(graph, node)
    if norm is not None and norm.layout == "NCHW":
        node = graph.create_node("call_module", path, (node,), name=path.replace(".", "_"))
    return node


def is_leaf_on_nchw(node: dict[str, Any]) -> bool:
    """Whether what a node outside of layers runs is a leaf of a class of torch that works on x_BCHW."""
    return node["layer"] is None and node["impl"] is not None and node["impl"].layout == "NCHW"


def _module(graph: nx.DiGraph, unit: Unit) -> nn.Module:
    nodes = [graph.nodes[n] for n in unit.nodes]
    first = nodes[0]
    if first["layer"] is not None:
        return _layer(unit, nodes)
    if first["kind"] in ("window_in", "window_out"):
        return (WindowIn if first["kind"] == "window_in" else WindowOut)(first["window"])
    return first["impl"].build(*first["place"])


def _layer(unit: Unit, nodes: list[dict[str, Any]]) -> Layer:
    branches: dict[str, nn.Module] = {}
    fuse, fed = None, None
    for name, node in zip(unit.nodes, nodes, strict=True):
        impl = node["impl"].build(*node["place"])
        norm = node["norm"].build(node["in_shape"]) if node["norm"] is not None else None
        if node["kind"] == "aggregator":
            fuse = Fuse(impl, norm)
            continue
        own = name.removeprefix(f"{unit.name}.")
        if fuse is not None and fed is None:  # the aggregator stands right before the branch it feeds
            fed = own
        dim, rate = node["out_shape"].dim, node["drop_path"]
        branches[own] = Branch(impl, norm, node["scale"], dim, rate, node["post_act"])
    return Layer(branches, fuse, fed)

"""Architecture -> modules and an fx graph that calls them. The only pass that makes tensors.

One fx node a layer, named after its module's path: `stages_2_layers_5 = self.stages.2.layers.5(...)`. fx
generates Python that drops every map after its last use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx
from torch import fx, nn

from blockforge.blocks.base import Act, Norm, Placed, Shape
from blockforge.blocks.building import built
from blockforge.blocks.joins.meeting import added
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import (
    BranchSite,
    ImageSite,
    NormedSite,
    SkipSite,
    SumSite,
    WindowInSite,
    WindowOutSite,
)
from blockforge.compiler.graph.units import Layer, Unit
from blockforge.compiler.lowering import modules
from blockforge.compiler.lowering.modules import Branch, Fuse, WindowIn, WindowOut, image_map
from blockforge.compiler.lowering.out_norms import out_norm_path
from blockforge.compiler.maps import beside_map, fit_map, token_map

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture


def build_modules(arch: Architecture, maps: Sequence[int] | None = None) -> dict[str, nn.Module]:
    """Every module of the network by its path, freshly initialised. `maps`: only what these stages' maps need, without
    the head."""
    return {unit.name: build_module(unit) for unit in needed_units(arch, maps) if unit.has_module}


def needed_units(arch: Architecture, maps: Sequence[int] | None) -> Sequence[Unit]:
    """What the maps of these stages need; without any, what the outputs need."""
    if maps is None:
        return [unit for unit in arch.units if unit.last.name in arch.computed]
    return _leading_to(arch, [arch.stages[i].end for i in maps])


def emit(
    arch: Architecture,
    maps: Sequence[int] | None = None,
    logits: bool = True,
    beside: Sequence[Unit] = (),
    out_norm: Norm | None = None,
    tokens: bool = False,
) -> fx.Graph:
    """The fx graph of the network.

    Args:
        maps: stages whose maps it returns, as NCHW views; None: it returns a single value.
        logits: without maps: the head's output, or those of `heads` by name; else what `beside` gives.
        beside: before the maps it returns these units' maps, as NCHW views: one, or of several a list.
        out_norm: with maps: the norm behind each.
        tokens: with maps: each comes with the tokens beside it, (map, tokens).
    """
    ends = [stage.end for stage in arch.stages]
    emitter = _Emitter(arch)
    for unit in _leading_to(arch, [*(ends[i] for i in maps or ()), *beside, *(arch.heads.values() if logits else ())]):
        emitter.add(unit)
    graph, made = emitter.graph, emitter.made
    given = [_nchw(graph, made[unit.name]) for unit in beside]
    maps_given: list[Any] = []
    for i in maps or ():
        end, shape = made[ends[i].name], ends[i].last.out_shape
        maps_given.append(_map(graph, end, shape, out_norm, out_norm_path(i)))
        if tokens:
            maps_given[-1] = (maps_given[-1], _tokens(graph, end, shape))
    first = given[0] if len(given) == 1 else given
    if logits:
        return emitter.giving(_outputs(arch, made))
    return emitter.giving(first if maps is None else (first, maps_given) if beside else maps_given)


def emit_head(arch: Architecture, pre_logits: bool = False) -> fx.Graph:
    """The fx graph of the main head with what is on its edges: of what it reads, as NCHW maps.

    Args:
        pre_logits: what its classifier reads in place of what it gives.
    """
    head = arch.main_head
    emitter = _Emitter(arch)
    for name, x in emitter.read(arch.read_by(head)).items():
        emitter.made[name] = emitter.graph.create_node("call_method", "permute", (x, 0, 2, 3, 1))
    for unit in arch.units_of(head):
        emitter.add(unit)
    given = emitter.made[head.name]
    if pre_logits:
        given.kwargs = {"pre_logits": True}
    return emitter.giving(given)


def emit_heads(arch: Architecture, read: Sequence[Unit]) -> fx.Graph:
    """The fx graph of all heads: of what they read, as NHWC maps."""
    emitter = _Emitter(arch)
    emitter.made |= emitter.read(read)
    for head in arch.heads.values():
        for unit in arch.units_of(head):
            emitter.add(unit)
    return emitter.giving(_outputs(arch, emitter.made))


def _outputs(arch: Architecture, made: Mapping[str, fx.Node]) -> fx.Node | dict[str, fx.Node]:
    given = {name: made[head.name] for name, head in arch.heads.items()}
    return given if arch.plan.names_outputs else given["head"]


def _leading_to(arch: Architecture, wanted: Sequence[Unit]) -> list[Unit]:
    """The units that these need, themselves included: a skip may lead to stages that are left out."""
    needed = {unit.last.name for unit in wanted}
    for name in tuple(needed):
        needed |= nx.ancestors(arch.graph, name)
    return [unit for unit in arch.units if unit.last.name in needed]


class _Emitter:
    """Writes the fx graph of a network, unit by unit; `made`: what gives the map of each."""

    def __init__(self, arch: Architecture) -> None:
        self.arch, self.graph = arch, fx.Graph()
        self.made: dict[str, fx.Node] = {}

    def read(self, units: Sequence[Unit]) -> dict[str, fx.Node]:
        """The maps of these units as what the graph is given."""
        return {unit.name: self.graph.placeholder(unit.name.replace(".", "_")) for unit in units}

    def giving(self, value: Any) -> fx.Graph:
        """The graph, with its result."""
        self.graph.output(value)
        self.graph.lint()
        return self.graph

    def add(self, unit: Unit) -> None:
        self.made[unit.name] = self.call(unit, unit.name.replace(".", "_"))

    def call(self, unit: Unit, name: str) -> fx.Node:
        """What gives the unit's map."""
        site, graph = unit.first.site, self.graph
        args: tuple[Any, ...] = tuple(self.made[i] for i in unit.inputs)
        match site:
            case ImageSite():
                args = (graph.placeholder("x"), unit.last.out_shape.dim, self.arch.least_image)
                return graph.create_node("call_function", image_map, args, name="image")
            case SumSite():
                return graph.create_node("call_function", added, args, name=name)
            case WindowOutSite():
                args += self.size(site.like, name)
            case SkipSite() if unit.last.shapes.rounding is not None:
                args = (*args, *self.size(site.like, name), unit.last.shapes.rounding)
                args = (graph.create_node("call_function", fit_map, args, name=f"{name}_fitted"),)
        if not is_leaf_on_nchw(unit.last):
            return graph.create_node("call_module", unit.name, args, name=name)
        y = graph.create_node("call_module", unit.name, (_nchw(graph, args[0]),), name=f"{name}_given")
        return graph.create_node("call_method", "permute", (y, 0, 2, 3, 1), name=name)

    def size(self, node: str, name: str) -> tuple[fx.Node, ...]:
        """Height and width of the map that a node gives; the map itself need not live until then."""
        like = self.made[self.arch.nodes[node].site.unit]
        with self.graph.inserting_before(like.next):
            return tuple(
                self.graph.create_node("call_method", "size", (like, d), name=f"{name}_{s}") for d, s in _SIDES
            )


_SIDES = ((1, "height"), (2, "width"))


def _nchw(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.create_node("call_method", "permute", (node, 0, 3, 1, 2), name=f"{node.name}_nchw")


def _map(graph: fx.Graph, node: fx.Node, shape: Shape, norm: Norm | None, path: str) -> fx.Node:
    """A stage's map, behind its output norm if there is one; without the tokens beside it."""
    if shape.extra:
        args = (node, shape.extra, shape.height, shape.width)
        node = graph.create_node("call_function", token_map, args, name=f"{node.name}_map")
    if norm is not None and norm.layout == "NHWC":
        node = graph.create_node("call_module", path, (node,), name=path.replace(".", "_"))
    node = _nchw(graph, node)
    if norm is not None and norm.layout == "NCHW":
        node = graph.create_node("call_module", path, (node,), name=path.replace(".", "_"))
    return node


def _tokens(graph: fx.Graph, node: fx.Node, shape: Shape) -> fx.Node:
    """The tokens beside a stage's map, (B, E, C)."""
    return graph.create_node("call_function", beside_map, (node, shape.extra), name=f"{node.name}_tokens")


def is_leaf_on_nchw(node: Node) -> bool:
    """Whether what a node outside of layers runs is a leaf of a class of torch that works on x_BCHW."""
    return node.layer is None and node.block is not None and node.block.layout == "NCHW"


def build_module(unit: Unit) -> nn.Module:
    """What a unit runs, freshly initialised."""
    site, placed = unit.first.site, unit.first.shapes.placed
    match site:
        case WindowInSite():
            return WindowIn(site.window)
        case WindowOutSite():
            return WindowOut(site.window)
    if isinstance(unit, Layer):
        return _layer(unit)
    assert placed is not None
    return built(placed)


def _layer(layer: Layer) -> modules.Layer:
    """In the order of its nodes, so that equal seeds give equal weights."""
    branches: dict[str, nn.Module] = {}
    fuse = None
    for node in layer.nodes:
        site, placed = node.site, node.shapes.placed
        assert isinstance(site, NormedSite)
        assert placed is not None
        block = built(placed)
        norm = built(Placed(node.norm, (node.shapes.in_shape,))) if node.norm is not None else None
        if isinstance(site, BranchSite):
            options: dict[str, Any] = {
                key: built(Placed(value, (node.out_shape,))) if isinstance(value, Act) else value
                for key, value in site.residual.options().items()
            }
            branches[site.key] = Branch(block, norm, node.out_shape.dim, site.residual.rate, **options)
        else:
            fuse = Fuse(block, norm)
    return modules.Layer(branches, fuse, layer.fed)

"""The nodes and edges of the graph.

`site` says what a node is, `shapes` what `infer` found of its maps, `costs` what the block says of its price. In the
networkx graph a node's object is its attribute `node`, an edge's its attribute `edge`; beside them the facts that are
asked for most stand as attributes of their own, which networkx's functions take by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx

from blockforge.blocks.base import AnyOp, AnyPlaced, Norm, Scratch, Shape
from blockforge.blocks.compose.norm import norm_on
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.facts import parameters
from blockforge.compiler.graph.sites import AggregateSite, BlockSite, BranchSite, NormedSite, Role, Site, WindowSite
from blockforge.compiler.maps import Rounding
from blockforge.errors import Locs


@dataclass(frozen=True, slots=True)
class Shapes:
    """The maps of a node.

    Attributes:
        in_shape, out_shape: of one image, or of one window.
        windows: how many tiles an image is cut into at this node, 1 outside windows.
        reduction: pixels of the image along a side for one position.
        placed: the block at its place, of a node that runs one.
        rounding: of a long skip whose block may round otherwise than the main path, see `compiler.maps`.
    """

    in_shape: Shape
    out_shape: Shape
    windows: int = 1
    reduction: int = 1
    placed: AnyPlaced | None = None
    rounding: Rounding | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """The price of a node for one image in float32, on one backend.

    Attributes:
        params, macs, scan: see `blocks.base.Cost`; those of all windows.
        activation_bytes: of its output.
        workspace_bytes: the most that lives inside it, its output included.
        scratch: what an operation holds beside that, and how many bytes of it do not live then.
    """

    params: int
    macs: int
    scan: int
    activation_bytes: int
    workspace_bytes: int
    scratch: tuple[tuple[Scratch, int], ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph: what stands there, the maps that it reads and gives, and what it costs."""

    site: Site
    shapes: Shapes
    costs: Costs

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def kind(self) -> str:
        return self.site.kind

    @property
    def stage(self) -> int | None:
        return self.site.stage

    @property
    def layer(self) -> int | None:
        return self.site.layer

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.site.inputs

    @property
    def sources(self) -> tuple[str, ...]:
        """What an aggregator joins; of other nodes none."""
        return self.site.inputs[1:] if isinstance(self.site, AggregateSite) else ()

    @property
    def block(self) -> AnyOp | None:
        """The block that it runs, if it runs one."""
        return self.site.block if isinstance(self.site, BlockSite) else None

    @property
    def program(self) -> Program | None:
        """The parts of its block, in the order they run; None of a block of one piece."""
        placed = self.shapes.placed
        return placed.op.as_program(*placed.told) if placed is not None else None

    @property
    def written_out(self) -> Program | None:
        """The parts of a block that nothing but its parts says what it is; None of a block with a name of its own."""
        block = self.block
        return self.program if isinstance(block, OfParts) and not block.by_name else None

    @property
    def norm(self) -> Norm | None:
        """The norm before its block, which is a part of the node."""
        return norm_on(self.site.norm, self.shapes.in_shape) if isinstance(self.site, NormedSite) else None

    @property
    def norm_parts(self) -> Program | None:
        """The parts of the norm before its block; None of one of one piece."""
        return self.norm.as_program(self.shapes.in_shape) if self.norm is not None else None

    @property
    def op(self) -> str:
        """The name of its block, or what else it does."""
        return self.block.title if self.block is not None else self.kind

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters of its block, defaults included. Shared: not to be changed."""
        if self.block is not None:
            return parameters(self.block)
        return {"window": self.site.window} if isinstance(self.site, WindowSite) else {}

    @property
    def drop_path(self) -> float:
        """The rate at which a branch is dropped."""
        return self.site.residual.rate if isinstance(self.site, BranchSite) else 0.0

    @property
    def out_shape(self) -> Shape:
        return self.shapes.out_shape

    @property
    def params(self) -> int:
        return self.costs.params

    @property
    def macs(self) -> int:
        return self.costs.macs

    def attributes(self) -> dict[str, Any]:
        """Those of the networkx graph's node."""
        site, shapes, costs = self.site, self.shapes, self.costs
        return {
            "node": self, "kind": site.kind, "op": self.op, "parameters": self.parameters, "impl": self.block,
            "norm": self.norm, "place": shapes.placed.place if shapes.placed is not None else (),
            "inputs": site.inputs, "stage": site.stage, "layer": site.layer, "in_shape": shapes.in_shape,
            "out_shape": shapes.out_shape, "windows": shapes.windows, "reduction": shapes.reduction,
            "params": costs.params, "macs": costs.macs, "scan": costs.scan, "activation_bytes": costs.activation_bytes,
            "workspace_bytes": costs.workspace_bytes, "scratch": costs.scratch,
            "drop_path": self.drop_path, "path": site.path,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edge:
    """A map on its way from the node that gives it to one that reads it."""

    source: str
    target: str
    role: Role
    shape: Shape


def _edges(nodes: Iterable[Node]) -> Iterator[Edge]:
    """The edges of a network, one for each pair of nodes: a layer's input may also be one of its sources."""
    given: dict[str, Shape] = {}
    for node in nodes:
        site = node.site
        given[site.name] = node.out_shape
        roles: dict[str, Role] = {}
        for i, source in enumerate(site.inputs):
            roles.setdefault(source, site.roles[i - 1] if 0 < i <= len(site.roles) else "main")
        yield from (Edge(source, site.name, role, given[source]) for source, role in roles.items())


def digraph(nodes: Iterable[Node], locs: Locs) -> nx.DiGraph[str]:
    """The network as networkx knows it, in execution order. `locs`: where everything is written."""
    nodes = list(nodes)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from((n.name, {**n.attributes(), "loc": locs.value(n.site.path)}) for n in nodes)
    graph.add_edges_from((e.source, e.target, {"edge": e, "role": e.role, "shape": e.shape}) for e in _edges(nodes))
    return graph

"""What runs as one module: single nodes, and layers; and the stages that hold them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import AggregateSite, BranchSite, WindowOutSite
from blockforge.spec.plan import Plan


@dataclass(frozen=True)
class Unit:
    """What one call of the built model runs.

    Attributes:
        name: the path of its module in the model.
        nodes: in execution order.
        inputs: the units whose maps it reads, in the order in which its module takes them.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]

    @property
    def first(self) -> Node:
        return self.nodes[0]

    @property
    def last(self) -> Node:
        """The node that gives its map."""
        return self.nodes[-1]

    @property
    def stage(self) -> int | None:
        return self.first.stage

    @property
    def has_module(self) -> bool:
        return self.first.site.has_module

    @property
    def params(self) -> int:
        return sum(n.params for n in self.nodes)

    @property
    def macs(self) -> int:
        return sum(n.macs for n in self.nodes)


@dataclass(frozen=True)
class Layer(Unit):
    """The branches of a layer, and the aggregator that feeds one of them if there is one.

    Attributes:
        index: its number in its stage.
        block: what the spec calls it.
    """

    index: int
    block: str

    @property
    def aggregate(self) -> Node | None:
        return next((n for n in self.nodes if isinstance(n.site, AggregateSite)), None)

    @property
    def branches(self) -> dict[str, Node]:
        """By their names in the layer."""
        return {n.site.key: n for n in self.nodes if isinstance(n.site, BranchSite)}

    @property
    def fed(self) -> str | None:
        """The branch that the aggregator feeds: it stands right before it."""
        if (aggregate := self.aggregate) is None:
            return None
        return next(name for name, node in self.branches.items() if aggregate.name in node.inputs)


@dataclass(frozen=True)
class Stage:
    """Everything from where a stage's input arrives to where its map leaves."""

    index: int
    units: tuple[Unit, ...]

    @property
    def nodes(self) -> list[Node]:
        return [n for unit in self.units for n in unit.nodes]

    @property
    def params(self) -> int:
        return sum(u.params for u in self.units)

    @property
    def macs(self) -> int:
        return sum(u.macs for u in self.units)

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(u for u in self.units if isinstance(u, Layer))

    @property
    def end(self) -> Unit:
        """What gives its map, the norm behind it included."""
        return self.units[-1]

    @property
    def window_out(self) -> WindowOutSite | None:
        """Where its windows are put together again, if its layers run in windows."""
        return next((u.first.site for u in self.units if isinstance(u.first.site, WindowOutSite)), None)


def units_of(nodes: Iterable[Node], plan: Plan) -> tuple[Unit, ...]:
    """The nodes in execution order, those of a layer together."""
    owner: dict[str, str] = {}
    members: dict[str, list[Node]] = {}
    for node in nodes:
        owner[node.name] = node.site.unit
        members.setdefault(node.site.unit, []).append(node)
    return tuple(_unit(name, tuple(group), owner, plan) for name, group in members.items())


def _unit(name: str, nodes: tuple[Node, ...], owner: dict[str, str], plan: Plan) -> Unit:
    first = nodes[0]
    if first.stage is None or first.layer is None:
        return Unit(name, nodes, tuple(owner[i] for i in first.inputs))
    # A layer reads its input and, if it has an aggregator, the sources: these may name the input again.
    read = (*first.inputs[:1], *(source for node in nodes for source in node.sources))
    block, _ = plan.stages[first.stage].layers[first.layer]
    return Layer(name, nodes, tuple(owner[i] for i in read), first.layer, block)


def stages_of(units: Iterable[Unit]) -> tuple[Stage, ...]:
    """The stages in order."""
    members: dict[int, list[Unit]] = {}
    for unit in units:
        if unit.stage is not None:
            members.setdefault(unit.stage, []).append(unit)
    return tuple(Stage(i, tuple(members[i])) for i in sorted(members))

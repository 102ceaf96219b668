"""What can be changed in a network: its branches, and what may stand in place of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pydantic import ValidationError

from blockforge.blocks.base import AnyOp, AnyPlaced, Placed, Shape
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import AggregateSite, BranchSite
from blockforge.errors import BlockforgeError
from blockforge.spec import Spec
from blockforge.swapping.edits import edited
from blockforge.swapping.symmetry import Units, sizes_of, units_between

SHARES = (0.75, 0.5, 0.25)
"""Of a parameter's value, what a thinner block has."""
SIDE = 14
"""Of the map that a block is tried on, if its tensors are the same there: on a small one convolutions see borders."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A branch of a layer.

    Attributes:
        stage, layer, branch: its numbers, in its network, stage and layer.
        name: the path of its module.
        op: the name of its block.
    """

    stage: int
    layer: int
    branch: int
    name: str
    op: str


@dataclass(frozen=True, eq=False)
class Alternative:
    """What may stand in a slot.

    Attributes:
        label: in a few words: `mlp_ratio 2`.
        params: parameters of the slot's block that change; None: another block stands there, or none.
        units: which the block then has fewer of.
        saved: multiply-adds and parameters that the network then has fewer of.
        branch: what stands in place of the branch, written out; None: no other block does.
        define: the definitions that it names.
        mark: tells it from others of its label: of what it is and how it learns.
    """

    slot: Slot
    label: str
    params: Mapping[str, Any] | None
    units: Units | None = None
    saved: Mapping[str, int] = field(default_factory=dict)
    branch: Mapping[str, Any] | None = None
    define: Mapping[str, Any] = field(default_factory=dict)
    mark: str = ""

    @property
    def is_skip(self) -> bool:
        """Whether the branch is left out."""
        return self.params is None and self.branch is None

    @property
    def is_foreign(self) -> bool:
        """Whether its weights are none of the network's own."""
        return self.branch is not None


def slots_of(arch: Architecture) -> list[Slot]:
    """The residual branches of a network, in order."""
    slots = []
    for stage in arch.stages:
        for layer in stage.layers:
            for number, node in enumerate(layer.branches.values()):
                slots.append(Slot(stage.index, layer.index, number, node.name, node.op))
    return slots


def alternatives_of(arch: Architecture, spec: Spec, shares: tuple[float, ...] = SHARES) -> Iterator[Alternative]:
    """What may stand in each slot: thinner forms of its block, whose weights are some of the block's, and nothing.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
    """
    found: dict[Any, list[tuple[Mapping[str, Any], Units]]] = {}
    savings = Savings(arch, spec)
    for slot in slots_of(arch):
        node = arch.nodes[slot.name]
        key = node.shapes.placed
        if key not in found:
            found[key] = list(_thinner(node, shares))
        changes: list[tuple[Mapping[str, Any] | None, Units | None]] = [*found[key]]
        if _may_go(arch, node):
            changes.append((None, None))
        for params, units in changes:
            label = "nothing" if params is None else in_words(params)
            made = Alternative(slot, label, params, units)
            saved = savings.of(made)
            if not isinstance(saved, str) and all(value >= 0 for value in saved.values()):
                yield replace(made, saved=saved)


class Savings:
    """What alternatives save. Layers of a stage that are of one block save the same: one of them is compiled.

    Args:
        arch: the network.
        spec: it written out, see `edits.written_out`.
    """

    def __init__(self, arch: Architecture, spec: Spec) -> None:
        self.arch, self.spec = arch, spec
        self.known: dict[Any, Mapping[str, int] | str] = {}

    def of(self, alternative: Alternative) -> Mapping[str, int] | str:
        """Multiply-adds and parameters that the network with one alternative has fewer of; a text says why there is no
        such network, or that it costs no less."""
        slot, stages = alternative.slot, self.arch.plan.stages
        block = stages[slot.stage].layers[slot.layer][0]
        key = slot.stage, block, slot.branch, self.arch.nodes[slot.name].shapes, alternative.label
        if key not in self.known:
            self.known[key] = self._asked(alternative)
        return self.known[key]

    def _asked(self, alternative: Alternative) -> Mapping[str, int] | str:
        try:
            other = compile_spec(edited(self.spec, [alternative]))
        except BlockforgeError as e:
            return str(e).partition("\n")[0].partition("]: ")[2]
        if alternative.is_foreign and _out_shape(other, alternative.slot) != _out_shape(self.arch, alternative.slot):
            return "it gives another map"
        saved = {name: getattr(self.arch, name) - getattr(other, name) for name in ("macs", "params")}
        return saved if max(saved.values()) > 0 else "it costs no less"


def _out_shape(arch: Architecture, slot: Slot) -> Shape:
    return [*arch.stages[slot.stage].layers[slot.layer].branches.values()][slot.branch].out_shape


def _may_go(arch: Architecture, node: Node) -> bool:
    """Whether the network can do without a branch, whose layer then passes on what the branch reads."""
    site = node.site
    assert isinstance(site, BranchSite)
    scale, is_fed = site.residual.keys.scale, any(isinstance(arch.nodes[i].site, AggregateSite) for i in node.inputs)
    adds_input = site.residual.keys.skip is True and (scale is None or scale.skip is None)
    return adds_input and not is_fed and node.shapes.in_shape == node.shapes.out_shape


def _thinner(node: Node, shares: tuple[float, ...]) -> Iterator[tuple[Mapping[str, Any], Units]]:
    """Parameters that make a node's block thinner, with the units that it then has fewer of."""
    placed = node.shapes.placed
    assert placed is not None
    site = node.site
    assert isinstance(site, BranchSite)
    if not isinstance(site.planned.spec.op, str):
        return  # parts that are written in its place: no parameters
    wide = placed.resolved()
    shape, given = placed.place[0], wide.parameters_dict()
    place = _tried(placed)
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            continue
        seen = {value}
        for share in shares:
            less = max(1, round(value * share)) if isinstance(value, int) else round(value * share, 4)
            if less in seen:
                continue
            seen.add(less)
            params = {name: less}
            if name == "num_heads" and given.get("head_dim", 0) is None:
                params["head_dim"] = shape.dim // value  # heads go, and those that stay are as wide as before
            if (units := _units(wide, {**given, **params}, place, value)) is not None:
                yield params, units


def _tried(placed: AnyPlaced) -> tuple[Any, ...]:
    """The place where a block's units are looked for."""
    other = Placed(placed.op, (placed.place[0]._replace(height=SIDE, width=SIDE), *placed.place[1:]))
    try:
        with torch.device("meta"):
            is_same = sizes_of(other.build()) == sizes_of(placed.build())
    except (BlockforgeError, RuntimeError):
        is_same = False
    return other.place if is_same else placed.place


def _units(wide: AnyOp, given: Mapping[str, Any], place: tuple[Any, ...], value: float) -> Units | None:
    """The units that a block with other parameters has fewer of; None: there is no such block there, or no units."""
    try:
        narrow = type(wide)(**given)
        one, other = Placed(wide, place), Placed(narrow, place)
        if one.out_shape() != other.out_shape():
            return None
        for block in (one, other):
            block.op.check(*block.told)
        return units_between(one, other, value if isinstance(value, int) else None)
    except (BlockforgeError, ValidationError, RuntimeError, ValueError):
        return None


def in_words(values: Mapping[str, Any]) -> str:
    """Parameters as a label says them: `num_heads 2, head_dim 8`."""
    return ", ".join(f"{k} {f'{v:g}' if isinstance(v, float) else v}" for k, v in values.items())

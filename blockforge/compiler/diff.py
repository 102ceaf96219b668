"""How two architectures differ: totals, stages, and layer by layer."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from blockforge.blocks.base import Norm, Op
from blockforge.blocks.compose.program import Program, Step
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite
from blockforge.compiler.graph.units import Layer, Unit

_MOST_PARTS = 6
"""Of a composed block, in words."""
TOTALS = ("params", "macs", "activation_bytes", "depth")


@dataclass(frozen=True)
class Change:
    """One unit (a stem, a downsample, a layer, ...) that is not the same on both sides.

    Attributes:
        name: the unit's path in the model.
        before, after: what it is, in words; None: it is not there.
        params, macs: after minus before.
    """

    name: str
    before: str | None
    after: str | None
    params: int
    macs: int


def totals(a: Architecture, b: Architecture) -> dict[str, tuple[int, int]]:
    """The totals of both."""
    return {name: (getattr(a, name), getattr(b, name)) for name in TOTALS}


def changes(a: Architecture, b: Architecture) -> list[Change]:
    """Every unit that differs, in execution order; units of the same path are held against each other."""
    left, right = {u.name: u for u in a.units}, {u.name: u for u in b.units}
    names = list(left) + [n for n in right if n not in left]
    order = {n: i for i, n in enumerate(right)} | {n: i for i, n in enumerate(left)}
    differing = []
    for name in sorted(names, key=lambda n: (_place(left.get(n) or right[n]), order[n])):
        before, after = _Side(left.get(name), right.get(name)), _Side(right.get(name), left.get(name))
        if before.identity != after.identity:
            words = (before.words, after.words)
            if before.words == after.words:  # the blocks are the same: what stands around them is not
                words = (before.all_words, after.all_words)
            differing.append(Change(name, *words, after.params - before.params, after.macs - before.macs))
    return differing


def _place(unit: Unit) -> tuple[int, ...]:
    """Sorts units as they run: image and stem, stages in order, head."""
    if unit.stage is None:
        return (10**6,) if unit.first.site.output is not None else (-1,)
    return (unit.stage, unit.index) if isinstance(unit, Layer) else (unit.stage,)


class _Side:
    """A unit of one architecture, beside that of the other; perhaps there is none."""

    def __init__(self, unit: Unit | None, other: Unit | None) -> None:
        self.params, self.macs = (unit.params, unit.macs) if unit is not None else (0, 0)
        self.words: str | None = None
        self.all_words: str | None = None
        self.identity: Any = None
        if unit is not None:
            sources = f" <- {', '.join(unit.inputs[1:])}" if len(unit.inputs) > 1 else ""
            gives = f" -> {unit.last.out_shape}{sources}"
            peers = {node.name: node for node in other.nodes} if other is not None else {}
            words = [_words(n, peers.get(n.name)) for n in unit.nodes]
            around = [_around(n) for n in unit.nodes]
            self.words = " + ".join(words) + gives
            self.all_words = " + ".join(map(operator.add, words, around)) + gives
            self.identity = ([_identity(n) for n in unit.nodes], unit.inputs[1:])


def _identity(node: Node) -> tuple[Any, ...]:
    """What makes it another node, wherever it stands; how often it is dropped does not."""
    form = node.site.residual.form() if isinstance(node.site, BranchSite) else []
    op, norm, shapes = node.written_out or node.block, node.norm_parts or node.norm, node.shapes
    return op, norm, form, shapes.in_shape, shapes.out_shape, shapes.windows


def _words(node: Node, peer: Node | None) -> str:
    """A node's block and what sets it apart from its defaults; of a composed block the parts that the other side's has
    not."""
    if node.written_out is None:
        return _block(node.block) if node.block is not None else node.op
    known = {step.path: step.placed for step in peer.written_out.steps} if peer is not None and peer.written_out else {}
    parts = [_part(step) for step in node.written_out.steps if known.get(step.path) != step.placed] if known else []
    more = [f"{len(parts) - _MOST_PARTS} more parts"] if len(parts) > _MOST_PARTS else []
    return f"{node.op}({', '.join(parts[:_MOST_PARTS] + more)})" if parts else node.op


def _part(step: Step) -> str:
    """A part by its path in the block, and what it gives."""
    inside = _parameters(step.op)
    name = step.path if step.name[-1].startswith(step.op.op) else f"{step.path} = {step.op.op}"
    return f"{name}({inside}) -> {step.shape}" if inside else f"{name} -> {step.shape}"


def _around(node: Node) -> str:
    """What a branch has around its op: the norm, the keys that are not at their defaults, windows."""
    norm = [] if node.norm is None else [f"norm {_norm(node.norm, node.norm_parts)}"]
    keys = node.site.residual.options() if isinstance(node.site, BranchSite) else {}
    windows = [f"{node.shapes.windows} windows"] if node.shapes.windows != 1 else []
    around = [*norm, *(f"{name} {_plain(value)}" for name, value in keys.items()), *windows]
    return f" [{', '.join(around)}]" if around else ""


def _norm(norm: Norm, parts: Program | None) -> str:
    return _block(norm) if parts is None else f"[{', '.join(_block(step.op) for step in parts.steps)}]"


def _block(block: Op[Any]) -> str:
    inside = _parameters(block)
    return f"{block.op}({inside})" if inside else block.op


def _parameters(block: Op[Any]) -> str:
    """Those that are not left at their defaults."""
    changed = {f: getattr(block, f) for f in block.model_fields_set}
    return ", ".join(f"{k}={_plain(v)}" for k, v in sorted(changed.items()))


def _plain(value: Any) -> str:
    """As a spec writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "op", value))

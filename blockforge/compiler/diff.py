"""How two architectures differ: totals, stages, and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blockforge.blocks.base import Op
from blockforge.compiler.architecture import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite, HeadSite
from blockforge.compiler.graph.units import Layer, Unit

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
        before, after = _Side(left.get(name)), _Side(right.get(name))
        if before.identity != after.identity:
            words = (before.words, after.words)
            if before.words == after.words:  # the blocks are the same: what stands around them is not
                words = (before.all_words, after.all_words)
            differing.append(Change(name, *words, after.params - before.params, after.macs - before.macs))
    return differing


def _place(unit: Unit) -> tuple[int, ...]:
    """Sorts units as they run: image and stem, stages in order, head."""
    if unit.stage is None:
        return (10**6,) if isinstance(unit.first.site, HeadSite) else (-1,)
    return (unit.stage, unit.index) if isinstance(unit, Layer) else (unit.stage,)


class _Side:
    """A unit of one architecture; of the other, perhaps, there is none."""

    def __init__(self, unit: Unit | None) -> None:
        self.params, self.macs = (unit.params, unit.macs) if unit is not None else (0, 0)
        self.words: str | None = None
        self.all_words: str | None = None
        self.identity: Any = None
        if unit is not None:
            sources = f" <- {', '.join(unit.inputs[1:])}" if len(unit.inputs) > 1 else ""
            gives = f" -> {unit.last.out_shape}{sources}"
            self.words = " + ".join(_words(n) for n in unit.nodes) + gives
            self.all_words = " + ".join(_words(n) + _around(n) for n in unit.nodes) + gives
            self.identity = ([_identity(n) for n in unit.nodes], unit.inputs[1:])


def _identity(node: Node) -> tuple[Any, ...]:
    """What makes it another node, wherever it stands; how often it is dropped does not."""
    form = node.site.residual.form() if isinstance(node.site, BranchSite) else []
    return node.block, node.norm, form, node.shapes.in_shape, node.out_shape, node.shapes.windows


def _words(node: Node) -> str:
    """A node's block and what sets it apart from its defaults."""
    return _block(node.block) if node.block is not None else node.op


def _around(node: Node) -> str:
    """What a branch has around its op: the norm, the keys that are not at their defaults, windows."""
    norm = [] if node.norm is None else [f"norm {_block(node.norm)}"]
    keys = node.site.residual.options() if isinstance(node.site, BranchSite) else {}
    windows = [f"{node.shapes.windows} windows"] if node.shapes.windows != 1 else []
    around = [*norm, *(f"{name} {_plain(value)}" for name, value in keys.items()), *windows]
    return f" [{', '.join(around)}]" if around else ""


def _block(block: Op[Any]) -> str:
    changed = {f: getattr(block, f) for f in block.model_fields_set}
    inside = ", ".join(f"{k}={_plain(v)}" for k, v in sorted(changed.items()))
    return f"{block.op}({inside})" if inside else block.op


def _plain(value: Any) -> str:
    """As a spec writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "op", value))

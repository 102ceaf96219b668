"""How two architectures differ: totals, stages, and layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blockforge.compiler.architecture import Architecture
from blockforge.compiler.lowering.lower import Unit, units

_IDENTITY = ("impl", "norm", "scale", "post_act", "in_shape", "out_shape", "windows")
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
    left, right = {u.name: u for u in units(a.graph)}, {u.name: u for u in units(b.graph)}
    names = list(left) + [n for n in right if n not in left]
    order = {n: i for i, n in enumerate(right)} | {n: i for i, n in enumerate(left)}
    found = []
    for name in sorted(names, key=lambda n: (_place(n), order[n])):
        before, after = _Side(a, left.get(name)), _Side(b, right.get(name))
        if before.identity != after.identity:
            found.append(
                Change(name, before.words, after.words, after.params - before.params, after.macs - before.macs)
            )
    return found


def _place(name: str) -> tuple[int, ...]:
    """Sorts units as they run: stem, stages in order, head."""
    numbers = tuple(int(p) for p in name.split(".") if p.isdigit())
    return {"input": (-2,), "stem": (-1,), "head": (10**6,)}.get(name, numbers)


class _Side:
    """A unit of one architecture; of the other, perhaps, there is none."""

    def __init__(self, arch: Architecture, unit: Unit | None) -> None:
        nodes = [arch.graph.nodes[n] for n in unit.nodes] if unit is not None else []
        self.params, self.macs = sum(n["params"] for n in nodes), sum(n["macs"] for n in nodes)
        self.words: str | None = None
        self.identity: Any = None
        if unit is not None:
            sources = f" <- {', '.join(unit.inputs[1:])}" if len(unit.inputs) > 1 else ""
            self.words = f"{' + '.join(_words(n) for n in nodes)} -> {nodes[-1]['out_shape']}{sources}"
            parts = [tuple(n[k] for k in _IDENTITY) for n in nodes]
            self.identity = (parts, unit.inputs[1:])


def _words(node: dict[str, Any]) -> str:
    """A node's block and what sets it apart from its defaults."""
    impl = node["impl"]
    if impl is None:
        return str(node["op"])
    changed = {f: getattr(impl, f) for f in impl.model_fields_set}
    inside = ", ".join(f"{k}={_plain(v)}" for k, v in sorted(changed.items()))
    return f"{impl.op}({inside})" if inside else impl.op


def _plain(value: Any) -> str:
    return str(getattr(value, "op", value))

"""The two things that may stand in place of any value: a reference `$name` and a hole `{$choice: [...]}`.

`lift` makes both from a document's plain tree; everything behind it works on lifted trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from blockforge.errors import Path

HoleKind = Literal["choice", "int", "float", "log"]


@dataclass(frozen=True, slots=True)
class Ref:
    """`$name`: the value that `let` gives to the name. `written`: where it stands in the document."""

    name: str
    written: Path = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """A value that the search fills.

    Attributes:
        kind: `choice` of `options`; `int` or `float` in [low, high]; `log`, a float on a logarithmic scale.
        path: what it is the value of; `name` is the same as text and is what Optuna sees.
        options: the choices, which may hold references and further holes.
        labels: one scalar for each choice, all different.
        step: distance between neighbours of an `int`.
        suffix: tells holes apart that different choices put at one path.
        written: where it stands in the document; inside a choice that is longer than `path`.
    """

    kind: HoleKind
    path: Path
    options: tuple[Any, ...] = ()
    labels: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: int = 1
    suffix: str = ""
    written: Path = ()

    @property
    def name(self) -> str:
        return ".".join(str(p) for p in self.path) + self.suffix

    def index(self, label: Any) -> int:
        """Which choice a label stands for."""
        return next(i for i, known in enumerate(self.labels) if same(known, label))

    def __contains__(self, value: Any) -> bool:
        if self.kind == "choice":
            return any(same(label, value) for label in self.labels)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.kind != "int" or (isinstance(value, int) and (value - int(self.low)) % self.step == 0)

    def tree(self) -> dict[str, Any]:
        """The hole as it is written in a spec."""
        if self.kind == "choice":
            return {"$choice": [plain(o) for o in self.options]}
        if self.kind == "int" and self.step != 1:
            return {"$int": [self.low, self.high, self.step]}
        return {f"${self.kind}": [self.low, self.high]}

    def values(self) -> str:
        """What it may become, for messages: `2, 4, 8` or `64 to 256 in steps of 32`."""
        if self.kind == "choice":
            labels = (str(label).lower() if isinstance(label, bool) else str(label) for label in self.labels[:12])
            return ", ".join(labels) + (", ..." if len(self.labels) > 12 else "")
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step != 1 else "")


BROKEN = Hole("choice", ())
"""Stands for a hole or reference that cannot be read, once that was reported."""


def plain(value: Any) -> Any:
    """The tree that `lift` would turn into `value`."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Hole):
        return value.tree()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def all_values(tree: Any) -> list[Any]:
    """Every value of a lifted tree as it is written, what holds others before them, the options of holes included."""
    found, todo = [], [tree]
    while todo:
        value = todo.pop()
        found.append(value)
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        todo += reversed(value.options if isinstance(value, Hole) else tuple(children))
    return found


def same(a: Any, b: Any) -> bool:
    """Equal, and not merely as True equals 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)

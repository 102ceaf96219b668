"""What may stand in place of any value: a reference `$name`, an expression `$(2 * name)`, a hole `{$choice: [...]}`.

`lift` makes them from a document's plain tree; everything behind it works on lifted trees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from blockforge.errors import Path
from blockforge.spec.expressions.evaluation import evaluate
from blockforge.spec.expressions.folding import LateError, fold
from blockforge.spec.expressions.parser import parse_value
from blockforge.spec.expressions.text import text_of
from blockforge.spec.expressions.tree import ExpressionError, LookUp, Node, names

HoleKind = Literal["choice", "int", "float", "log"]
EARLY = ("layer", "depth", "stage", "classes")
"""Names of a place that the spec itself gives: layers and stages count from 0, `depth` is the stage's."""
LATE = ("in", "out", "height", "width")
"""Names of a place that only the maps give: what is read there, and the width that is asked for."""


@dataclass(frozen=True, slots=True)
class Ref:
    """`$name`: the value that `let` gives to the name. `written`: where it stands in the document."""

    name: str
    written: Path = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, slots=True)
class Expr:
    """`$(2 * w)`: a value that is computed from names. Two are equal if they compute the same in the same way.

    Attributes:
        key: the expression written out in the one way that all equal ones share; lists and mappings in it as JSON.
        text: as it is written.
        node: what `text` says; once a spec is resolved, with the values of early names in place of them.
        written: where it stands in the document.
    """

    key: str
    text: str = field(compare=False)
    node: Node = field(compare=False, repr=False)
    written: Path = field(default=(), compare=False)

    @classmethod
    def read(cls, text: str, written: Path = ()) -> Expr:
        """From its text, `$(...)`. Raises: ExpressionError, with the column in `text`."""
        node = parse_value("  " + text[2:-1])
        return cls(f"$({text_of(node)})", text, node, written)

    @classmethod
    def of_name(cls, name: str, written: Path = ()) -> Expr:
        """What `$name` is: `$(name)`."""
        return cls(f"$({name})", f"${name}", Node("name", 0, len(name) + 1, (), (name,)), written)

    def __str__(self) -> str:
        return self.key

    def names(self) -> frozenset[str]:
        """The names that its value depends on."""
        return frozenset(node.value[0] for node in names(self.node))

    def evaluate(self, look_up: Callable[[str], Any]) -> Any:
        """The value, as a spec's tree holds it: `none` is the text `none`, a whole number an int.

        Args:
            look_up: a name's value: number, bool, text, list, None, or anything that is only compared and passed on.
        Raises: ExpressionError, with `column` and `length` in `text`; what `look_up` raises.
        """
        return _result(self.node, evaluate(self.node, _by_name(look_up)))

    def fold(self, look_up: Callable[[str], Any]) -> Any:
        """The value, or an expression of what is left where `look_up` gives expressions for names.

        Raises: as `evaluate`.
        """

        def find(name: str) -> Any:
            if isinstance(value := look_up(name), Expr):
                raise LateError(value.node)
            return value

        node = fold(self.node, _by_name(find))
        if node.kind == "constant":
            return _result(self.node, node.value)
        return Expr(f"$({text_of(node)})", self.text, node, self.written)


def _by_name(look_up: Callable[[str], Any]) -> LookUp:
    def find(path: Path) -> Any:
        value = look_up(str(path[0]))
        return "none" if value is None else value

    return find


def _result(node: Node, value: Any) -> Any:
    """What an expression gives: whole numbers as such, and none that a spec cannot hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value) or not -(2**63) <= value < 2**63:
        raise ExpressionError("this number is too large", node.column, node.length)
    return int(value) if value == int(value) else value


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """A value that the search fills.

    Attributes:
        kind: `choice` of `options`; `int` or `float` in [low, high]; `log`, a float on a logarithmic scale.
        path: what it is the value of; `name` is the same as text and is what Optuna sees.
        options: the choices, which may hold references and further holes.
        labels: one scalar for each choice, all different.
        named: the labels are written, as keys of a mapping of the choices.
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
    named: bool = False
    step: int = 1
    suffix: str = ""
    written: Path = ()

    @property
    def name(self) -> str:
        return ".".join(str(p) for p in self.path) + self.suffix

    def index(self, label: Any) -> int:
        """Which choice a label stands for."""
        return next(i for i, known in enumerate(self.labels) if same(known, label))

    def way_to(self, index: int) -> Path:
        """Where a choice is written, from the hole's own place."""
        return ("$choice", str(self.labels[index]) if self.named else index)

    def __contains__(self, value: Any) -> bool:
        if self.kind == "choice":
            return any(same(label, value) for label in self.labels)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.kind != "int" or (isinstance(value, int) and (value - int(self.low)) % self.step == 0)

    def tree(self) -> dict[str, Any]:
        """The hole as it is written in a spec."""
        if self.kind == "choice":
            options = [plain(o) for o in self.options]
            return {"$choice": dict(zip(self.labels, options, strict=True)) if self.named else options}
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
    if isinstance(value, Expr):
        return value.text
    if isinstance(value, Hole):
        return value.tree()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def all_values(tree: Any) -> list[Any]:
    """Every value of a lifted tree as it is written, what holds others before them, the options of holes included."""
    values, todo = [], [tree]
    while todo:
        value = todo.pop()
        values.append(value)
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        todo += reversed(value.options if isinstance(value, Hole) else tuple(children))
    return values


def same(a: Any, b: Any) -> bool:
    """Equal, and not merely as True equals 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def names_in(value: Any) -> frozenset[str]:
    """The names that a value itself looks up, what lies in it aside."""
    return value.names() if isinstance(value, Expr) else frozenset([value.name] if isinstance(value, Ref) else ())

"""What `require` says of the holes of a space: which holes each relation depends on, and what must be equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.parser import parse
from blockforge.spec.expressions.tree import Node, names
from blockforge.spec.holes import holes
from blockforge.spec.model import Spec
from blockforge.spec.relations.lookup import all_at, every_option
from blockforge.spec.relations.writing_out import written_out
from blockforge.spec.values import Hole


@dataclass(frozen=True)
class Constraint:
    """One relation.

    Attributes:
        holes: all that its names may depend on.
        equal: sides that must be equal whatever else holds.
    """

    node: Node
    holes: frozenset[str]
    equal: tuple[tuple[Node, Node], ...]


class Constraints:
    """The relations of a space, in the order they are written.

    Attributes:
        tree: the space, lifted.
        holes: every hole of it, by name.
        direct: a name that is a hole's value, whatever else is chosen -> the hole.
        computed: names that may stand for what an expression gives, which the ends of its names' ranges do not bound.
    """

    def __init__(self, space: Spec) -> None:
        self.tree: Mapping[str, Any] = space.lifted
        self.holes = holes(space)
        self.direct: dict[Path, str] = {}
        self.computed: set[Path] = set()
        self.all = [self._read(text) for text in self.tree.get("require", ())]

    def on(self, hole: str) -> bool:
        """Whether some relation depends on a hole."""
        return any(hole in constraint.holes for constraint in self.all)

    def _read(self, text: str) -> Constraint:
        node, depends_on = written_out(parse(text), self.tree), set[str]()
        for name in names(node):
            passed = self._passed(name.value)
            depends_on.update(hole.name for hole in passed)
            if name.value not in self.computed and len(passed) == 1 and not any(map(_holds_more, passed[0].options)):
                self.direct[name.value] = passed[0].name
        return Constraint(node, frozenset(depends_on), tuple(_equal_sides(node)))

    def _passed(self, path: Path) -> list[Hole]:
        """The holes on the way to what a name stands for."""
        passed: dict[str, Hole] = {}

        def every(hole: Hole) -> list[Any]:
            passed[hole.name] = hole
            return every_option(hole)

        for _ in all_at(self.tree, path, every, computed=lambda expr: self.computed.add(path)):
            pass
        return list(passed.values())


def _equal_sides(node: Node) -> Iterator[tuple[Node, Node]]:
    if node.kind == "and":
        for part in node.parts:
            yield from _equal_sides(part)
    elif node.kind == "compare":
        for i, sign in enumerate(node.value):
            if sign == "==":
                yield node.parts[i], node.parts[i + 1]


def _holds_more(option: Any) -> bool:
    """Whether an option of a choice is more than a plain value: a name may lead into it."""
    return not isinstance(option, str | int | float | bool | None)

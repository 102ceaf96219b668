"""An expression as a tree, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from blockforge.errors import Path

EXAMPLE = "as in stages.1.dim >= stages.0.dim, or: M == 'all' or S <= M"

LookUp = Callable[[Path], Any]
"""The value at a path. Raises: AbsentError where a candidate has none."""


class ExpressionError(ValueError):
    """An expression that cannot be read or computed; `column` (from 0) and `length` point into it, `index` tells
    which of several expressions it is."""

    index = 0

    def __init__(self, message: str, column: int = 0, length: int = 1, hint: str = EXAMPLE) -> None:
        super().__init__(message)
        self.column, self.length, self.hint = column, length, hint


class AbsentError(Exception):
    """A value that a candidate does not have, such as the stride of connections that it has not."""


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    `kind` is a sign, a word, a function, `compare`, `negative`, `index`, `pattern`, `constant` or `name`.
    """

    kind: str
    column: int = field(compare=False)
    length: int = field(compare=False)
    parts: tuple[Node, ...] = ()
    value: Any = None
    """Of a constant; of a name its path; of a comparison its signs."""


def names(node: Node) -> Iterator[Node]:
    """The names in an expression, in the order they are written."""
    todo = [node]
    while todo:
        part = todo.pop()
        if part.kind == "name":
            yield part
        todo += reversed(part.parts)


def count(node: Node) -> int:
    """Of how many parts an expression is made, itself included."""
    return 1 + sum(map(count, node.parts))

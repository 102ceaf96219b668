"""Names and expressions inside layer patterns: `($mixer*$n attn)*` is an expression whose value is a pattern."""

from __future__ import annotations

import re
from dataclasses import replace

from blockforge.errors import Path
from blockforge.spec.expressions.brackets import closing
from blockforge.spec.expressions.text import text_of
from blockforge.spec.expressions.tree import ExpressionError, Node
from blockforge.spec.values import Expr

_NAME = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")


def stands_at(path: Path) -> bool:
    """Whether a text at this path is a layer pattern: a stage's `layers`, or an item of a list there."""
    return len(path) in (3, 4) and path[0] == "stages" and path[2] == "layers"


def is_whole(text: str) -> bool:
    """Whether a text is one name or one expression and no more."""
    return _NAME.fullmatch(text) is not None or (text.startswith("$(") and closing(text) == len(text) - 1)


def read(text: str, written: Path) -> Expr:
    """A pattern with `$name` and `$(...)` in it. Raises: ExpressionError, with the column in `text`."""
    parts, end = [], 0
    while (start := text.find("$", end)) >= 0:
        parts.append(_text(text, end, start))
        end = _end(text, start)
        value = text[start:end]
        expr = Expr.read(value) if value.startswith("$(") else Expr.of_name(value[1:])
        parts.append(_moved(expr.node, start))
    parts.append(_text(text, end, len(text)))
    node = Node("pattern", 0, len(text), tuple(part for part in parts if part.value != ""))
    return Expr(f"$({text_of(node)})", text, node, written)


def _end(text: str, start: int) -> int:
    if text.startswith("$(", start):
        if (end := closing(text[start:])) is None:
            raise ExpressionError("'$(' is never closed", start, 2, "close it with ')'")
        return start + end + 1
    if (name := _NAME.match(text, start)) is None:
        raise ExpressionError("'$' begins a name, as in $mixer", start, 1, "letters, digits and _ follow")
    return name.end()


def _text(text: str, start: int, end: int) -> Node:
    return Node("constant", start, end - start, (), text[start:end])


def _moved(node: Node, by: int) -> Node:
    return replace(node, column=node.column + by, parts=tuple(_moved(part, by) for part in node.parts))

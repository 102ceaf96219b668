"""What is left of an expression while some of its names have no values yet."""

from __future__ import annotations

from dataclasses import replace

from blockforge.spec.expressions.evaluation import evaluate, truth
from blockforge.spec.expressions.tree import ExpressionError, LookUp, Node, count

MAX_NODES = 500
"""Of one expression, once names that stand for expressions are written out: a few lines of `let` can double it each."""


class LateError(Exception):
    """A name that gets its value later: `node` stands for it until then."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.node = node


def fold(node: Node, look_up: LookUp) -> Node:
    """`node` with all that is known computed; a constant, where everything is.

    Args:
        look_up: may raise LateError.
    Raises: ExpressionError.
    """
    folded = _fold(node, look_up)
    if count(folded) > MAX_NODES:
        raise ExpressionError(f"written out, this has more than {MAX_NODES} parts", node.column, node.length)
    return folded


def _fold(node: Node, look_up: LookUp) -> Node:
    try:
        return replace(node, kind="constant", parts=(), value=evaluate(node, look_up))
    except LateError as late:
        if node.kind == "name":
            return _moved(late.node, node)
    if node.kind == "if":
        test = _fold(node.parts[0], look_up)
        if test.kind == "constant":
            return _fold(node.parts[1 if truth(test.value) else 2], look_up)
    return replace(node, parts=tuple(_fold(part, look_up) for part in node.parts))


def _moved(node: Node, to: Node) -> Node:
    """`node`, for messages, at the place of the name that stands for it."""
    parts = tuple(_moved(part, to) for part in node.parts)
    return replace(node, column=to.column, length=to.length, parts=parts)

"""An equality solved for a name in it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from blockforge.spec.expressions.bounds import UnknownError
from blockforge.spec.expressions.evaluation import evaluate
from blockforge.spec.expressions.tree import LookUp, Node, names


def solve(left: Node, right: Node, wanted: Node, look_up: LookUp) -> Any:
    """The value of the name `wanted` that makes two sides equal; it stands in one of them, once.

    Raises: UnknownError where sides cannot be turned around (`//`, `%`), or no value is the only one. AbsentError.
    """
    if not _within(wanted, left):
        left, right = right, left
    try:
        value = _turned(left, evaluate(right, look_up), wanted, look_up)
    except OverflowError:  # an integer beyond all floats
        raise UnknownError from None
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return value


def _turned(node: Node, target: Any, wanted: Node, look_up: LookUp) -> Any:
    """What `wanted` must be for `node` to be `target`."""
    if node is wanted:
        return target
    if isinstance(target, bool | str):
        raise UnknownError
    if node.kind == "negative":
        return _turned(node.parts[0], -target, wanted, look_up)
    if node.kind not in ("+", "-", "*", "/"):
        raise UnknownError
    first, second = node.parts
    left = _within(wanted, first)
    known = evaluate(second if left else first, look_up)
    if isinstance(known, bool | str):
        raise UnknownError
    if node.kind == "+":
        needed = target - known
    elif node.kind == "-":
        needed = target + known if left else known - target
    elif node.kind == "*":
        needed = _quotient(target, known)
    else:
        needed = target * known if left else _quotient(known, target)
    return _turned(first if left else second, needed, wanted, look_up)


def _quotient(a: Any, b: Any) -> Any:
    if b == 0:
        raise UnknownError
    exact = all(isinstance(v, int | Fraction) for v in (a, b))
    return Fraction(a) / Fraction(b) if exact else float(a) / float(b)


def _within(wanted: Node, node: Node) -> bool:
    return any(name is wanted for name in names(node))

"""What an expression of `require` can still become: bounds while values are open, and an equality solved for a name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import Any

from blockforge.errors import Path
from blockforge.spec.relations.expressions import AbsentError, LookUp, Node, evaluate, names

Open = Callable[[Path], list[Any]]
"""All values that a name may still have, of a range its ends."""
_Bounds = tuple[float, float]


class UnknownError(Exception):
    """Nothing can be said of an expression."""


def possible(node: Node, values: Open) -> bool:
    """Whether an expression may still hold. True where that cannot be told.

    Raises: AbsentError where a name has no value.
    """
    if node.kind == "and":
        return all(possible(part, values) for part in node.parts)
    if node.kind == "or":
        return any(possible(part, values) for part in node.parts)
    if node.kind != "compare":
        return True
    try:
        sides = [_bounds(part, values) for part in node.parts]
    except UnknownError:
        return True
    return all(_may_compare(sign, sides[i], sides[i + 1]) for i, sign in enumerate(node.value))


def _may_compare(sign: str, a: _Bounds, b: _Bounds) -> bool:
    if sign == "==":
        return a[0] <= b[1] and b[0] <= a[1]
    if sign == "!=":
        return not a[0] == a[1] == b[0] == b[1]
    if sign in (">", ">="):
        a, b = b, a
    return a[0] < b[1] or (a[0] == b[1] and sign in ("<=", ">="))


def _bounds(node: Node, values: Open) -> _Bounds:
    if node.kind in ("constant", "name"):
        found = [node.value] if node.kind == "constant" else values(node.value)
        if not found:
            raise AbsentError
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in found):
            raise UnknownError
        return min(found), max(found)
    if node.kind == "negative":
        low, high = _bounds(node.parts[0], values)
        return -high, -low
    if node.kind not in ("+", "-", "*", "/", "//", "%"):
        raise UnknownError
    a, b = (_bounds(part, values) for part in node.parts)
    if node.kind == "+":
        return a[0] + b[0], a[1] + b[1]
    if node.kind == "-":
        return a[0] - b[1], a[1] - b[0]
    if node.kind == "*":
        return _ends([x * y for x in a for y in b])
    if b[0] <= 0:  # a divisor may be 0, or of either sign
        return -inf, inf
    if node.kind == "%":
        return 0, b[1]
    low, high = _ends([x / y for x in a for y in b])
    return (low, high) if node.kind == "/" else (low - 1, high)


def _ends(found: list[float]) -> _Bounds:
    return min(found), max(found)


def solve(left: Node, right: Node, wanted: Node, look_up: LookUp) -> Any:
    """The value of the name `wanted` that makes two sides equal; it stands in one of them, once.

    Raises: UnknownError where sides cannot be turned around (`//`, `%`), or no value is the only one. AbsentError.
    """
    if not _within(wanted, left):
        left, right = right, left
    found = _turned(left, evaluate(right, look_up), wanted, look_up)
    return int(found) if isinstance(found, Fraction) and found.denominator == 1 else _plain(found)


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


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else value

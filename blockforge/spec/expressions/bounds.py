"""What an expression can still become while values are open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import inf, isnan
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.tree import AbsentError, Node

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
    except (UnknownError, OverflowError):  # the latter: an integer beyond all floats
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
        return _ends([node.value] if node.kind == "constant" else values(node.value))
    if node.kind not in _RULES:
        raise UnknownError
    low, high = _RULES[node.kind](*map(functools.partial(_bounds, values=values), node.parts))
    return (-inf if isnan(low) else low), (inf if isnan(high) else high)


def _ends(values: list[Any]) -> _Bounds:
    if not values:
        raise AbsentError
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise UnknownError
    return min(values), max(values)


def _product(a: _Bounds, b: _Bounds) -> _Bounds:
    ends = [x * y for x in a for y in b]
    return (-inf, inf) if any(map(isnan, ends)) else _ends(ends)  # 0 times what has no bound


def _quotient(a: _Bounds, b: _Bounds) -> _Bounds:
    if b[0] <= 0:  # a divisor may be 0, or of either sign
        return -inf, inf
    ends = [x / y for x in a for y in b]
    return (-inf, inf) if any(map(isnan, ends)) else _ends(ends)


def _whole_quotient(a: _Bounds, b: _Bounds) -> _Bounds:
    low, high = _quotient(a, b)
    return low - 1, high


def _remainder(_: _Bounds, b: _Bounds) -> _Bounds:
    return (-inf, inf) if b[0] <= 0 else (0, b[1])


def _size(a: _Bounds) -> _Bounds:
    ends = [abs(end) for end in a]
    return 0 if a[0] <= 0 <= a[1] else min(ends), max(ends)


_RULES: dict[str, Callable[..., _Bounds]] = {
    "negative": lambda a: (-a[1], -a[0]),
    "+": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "-": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "*": _product,
    "/": _quotient,
    "//": _whole_quotient,
    "%": _remainder,
    "abs": _size,
    "min": lambda *all_: (min(low for low, _ in all_), min(high for _, high in all_)),
    "max": lambda *all_: (max(low for low, _ in all_), max(high for _, high in all_)),
}
"""The bounds of what a sign or a function gives, from those of its parts."""

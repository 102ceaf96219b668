"""An equality solved for a name in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import inf
from typing import Any

from blockforge.spec.expressions.bounds import UnknownError
from blockforge.spec.expressions.evaluation import evaluate, truth
from blockforge.spec.expressions.tree import AbsentError, ExpressionError, LookUp, Node, names

Range = tuple[Any, Any]
"""The least and the largest value; of text, and where one value alone will do, that twice."""


def equalities(node: Node, look_up: LookUp) -> Iterator[tuple[Node, Node]]:
    """Sides that must be equal for a relation to hold, with what is known: of `or` those of the only part that may
    still hold, of `if` the part that is meant."""
    if node.kind == "and":
        for part in node.parts:
            yield from equalities(part, look_up)
    elif node.kind == "or":
        left = [part for part in node.parts if _known(part, look_up) is not False]
        if len(left) == 1:
            yield from equalities(left[0], look_up)
    elif node.kind == "if":
        meant = _known(node.parts[0], look_up)
        if meant is not None:
            yield from equalities(node.parts[1 if meant else 2], look_up)
    elif node.kind == "compare":
        sides = [_meant(part, look_up) for part in node.parts]
        yield from ((sides[i], sides[i + 1]) for i, sign in enumerate(node.value) if sign == "==")


def _meant(node: Node, look_up: LookUp) -> Node:
    """An expression without the parts that a known `if` leaves out."""
    if node.kind == "if" and (meant := _known(node.parts[0], look_up)) is not None:
        return _meant(node.parts[1 if meant else 2], look_up)
    return replace(node, parts=tuple(_meant(part, look_up) for part in node.parts)) if node.parts else node


def _known(node: Node, look_up: LookUp) -> bool | None:
    """Whether a part holds; None where that is not known yet."""
    try:
        return truth(evaluate(node, look_up))
    except (AbsentError, ExpressionError):
        return None


def solve(left: Node, right: Node, wanted: Node, look_up: LookUp) -> Range:
    """Between which values the name `wanted` lies where two sides are equal; it stands in one of them, once.

    All values that make them equal are in the range; where an operation loses something (`//`, `up`, `near`), others
    may be too. Raises: UnknownError where sides cannot be turned around (`%`), or any value may do. AbsentError.
    """
    if not _within(wanted, left):
        left, right = right, left
    try:
        value = evaluate(right, look_up)
        low, high = _turned(left, (value, value), wanted, look_up)
    except OverflowError:  # an integer beyond all floats
        raise UnknownError from None
    return _plain(low), _plain(high)


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return value


def _turned(node: Node, target: Range, wanted: Node, look_up: LookUp) -> Range:
    """What `wanted` must be for `node` to be within `target`."""
    if node is wanted:
        return target
    low, high = target
    if isinstance(low, bool | str):
        raise UnknownError
    if node.kind in _ALONE:
        below, above = _ALONE[node.kind]
        return _turned(node.parts[0], (low - below, high + above), wanted, look_up)
    if node.kind == "negative":
        return _turned(node.parts[0], (-high, -low), wanted, look_up)
    if node.kind not in _FIRST:
        raise UnknownError
    first, second = node.parts
    left = _within(wanted, first)
    known = evaluate(second if left else first, look_up)
    if isinstance(known, bool | str):
        raise UnknownError
    needed: Range = _FIRST[node.kind](low, high, known) if left else _second(node.kind, low, high, known)
    return _turned(first if left else second, needed, wanted, look_up)


def _second(sign: str, low: Any, high: Any, known: Any) -> Range:
    """Of an operation's second part, if its first is `known`."""
    if sign in ("+", "*"):
        needed: Range = _FIRST[sign](low, high, known)
        return needed
    if sign == "-":
        return known - high, known - low
    if sign == "/" and (low == high or low > 0):
        return _sorted(_quotient(known, low), _quotient(known, high))
    if sign == "//" and low > 0 and known > 0:
        return _quotient(known, high + 1), _quotient(known, low)
    raise UnknownError


def _whole(low: Any, high: Any, step: Any) -> Range:
    """x where x // step lies in a range."""
    if step <= 0:
        raise UnknownError
    return low * step, (high + 1) * step


def _near(low: Any, high: Any, step: Any) -> Range:
    """x where near(x, step) does: the least multiple stands for all below it, and another may be raised by one."""
    return (-inf if low <= step else low - 2 * step), high + step


_ALONE = {"floor": (0, 1), "ceil": (1, 0), "round": (Fraction(1, 2), Fraction(1, 2))}
"""How far below and above its result the argument of a function lies."""
_FIRST: dict[str, Any] = {
    "+": lambda low, high, known: (low - known, high - known),
    "-": lambda low, high, known: (low + known, high + known),
    "*": lambda low, high, known: _sorted(_quotient(low, known), _quotient(high, known)),
    "/": lambda low, high, known: _sorted(low * known, high * known),
    "//": _whole, "up": lambda low, high, step: (low - step, high), "near": _near,
}  # fmt: skip
"""What the first part of an operation lies between, if its second is known."""


def _sorted(a: Any, b: Any) -> Range:
    return (a, b) if a <= b else (b, a)


def _quotient(a: Any, b: Any) -> Any:
    if b == 0:
        raise UnknownError
    exact = all(isinstance(v, int | Fraction) for v in (a, b))
    return Fraction(a) / Fraction(b) if exact else float(a) / float(b)


def _within(wanted: Node, node: Node) -> bool:
    return any(name is wanted for name in names(node))

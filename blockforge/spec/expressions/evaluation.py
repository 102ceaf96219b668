"""The value of an expression, and by how much one fails that should hold."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from blockforge.spec.expressions.tree import ExpressionError, LookUp, Node


def _up(value: float, step: float) -> int:
    return math.ceil(value / step) * _whole_step(step)


def _near(value: float, step: float) -> int:
    """The nearest multiple, never below 90% of the value nor below one step: as MobileNet rounds its widths
    (https://arxiv.org/abs/1905.02244)."""
    nearest = max(_whole_step(step), math.floor((value + step / 2) / step) * int(step))
    return nearest + int(step) if nearest < 0.9 * value else nearest


def _whole_step(step: float) -> int:
    if step < 1 or step != int(step):
        raise ArithmeticError
    return int(step)


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "//": operator.floordiv,
    "%": operator.mod, "negative": operator.neg, "min": min, "max": max, "abs": abs,
    "floor": math.floor, "ceil": math.ceil, "round": round, "up": _up, "near": _near,
}  # fmt: skip
"""What numbers may be joined by, or put into."""


def evaluate(node: Node, look_up: LookUp) -> Any:
    """The value of an expression. Raises: ExpressionError, AbsentError."""
    parts = node.parts
    if node.kind == "constant":
        return node.value
    if node.kind == "name":
        return look_up(node.value)
    if node.kind in ("and", "or"):
        return _first(parts, look_up, stop_at=node.kind == "or")
    if node.kind == "not":
        return not truth(evaluate(parts[0], look_up))
    if node.kind == "if":
        return evaluate(parts[1 if truth(evaluate(parts[0], look_up)) else 2], look_up)
    if node.kind == "index":
        return _item(node, evaluate(parts[0], look_up), evaluate(parts[1], look_up))
    if node.kind == "pattern":
        return "".join(_piece(part, evaluate(part, look_up)) for part in parts)
    if node.kind == "compare":
        return all(_holds(sign, parts[i], parts[i + 1], look_up) for i, sign in enumerate(node.value))
    sign, numbers = "-" if node.kind == "negative" else node.kind, []
    for part in parts:  # one call a level: a sum of hundreds of terms is as many levels deep
        value = evaluate(part, look_up)
        _check_number(value, part, sign)
        numbers.append(value)
    try:
        return _ARITHMETIC[node.kind](*numbers)
    except (ArithmeticError, ValueError):  # the latter: to round what is not a number
        called = f"{sign}({', '.join(map(_shown, numbers))})" if sign.isalpha() else ""
        text = f"{called or f' {sign} '.join(map(_shown, numbers))} has no value"
        raise ExpressionError(text, node.column, node.length) from None


def excess(node: Node, look_up: LookUp) -> float:
    """By how much an expression fails, 0 where it holds: for `a <= b` it is (a - b) / max(|a|, |b|, 1).

    Of `and` the largest, of `or` the smallest of the parts; what has no measure fails by 1.
    """
    if evaluate(node, look_up):
        return 0.0
    if node.kind == "and":
        return max(excess(part, look_up) for part in node.parts)
    if node.kind == "or":
        return min(excess(part, look_up) for part in node.parts)
    if node.kind != "compare":
        return 1.0
    values = [evaluate(part, look_up) for part in node.parts]
    return max(_gap(sign, values[i], values[i + 1]) for i, sign in enumerate(node.value))


def failing(node: Node, look_up: LookUp) -> Node:
    """The part of a failing expression to show: the first part of an `and` that fails."""
    if node.kind == "and":
        return failing(next(p for p in node.parts if not evaluate(p, look_up)), look_up)
    return node


def _first(parts: tuple[Node, ...], look_up: LookUp, stop_at: bool) -> bool:
    return next((stop_at for part in parts if truth(evaluate(part, look_up)) is stop_at), not stop_at)


def truth(value: Any) -> bool:
    """Whether a value counts as true; `none` does not."""
    return value != "none" and bool(value)


def _item(node: Node, values: Any, index: Any) -> Any:
    if not isinstance(values, list | tuple):
        raise ExpressionError(f"{_said(values)} is no list, which [ ] needs", node.column, node.length)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(values):
        text = f"there is no item {_said(index)} in a list of {len(values)}"
        raise ExpressionError(text, node.column, node.length, hint=f"items count from 0 to {len(values) - 1}")
    return values[index]


def _piece(node: Node, value: Any) -> str:
    """A value inside a layer pattern."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        text = f"{_said(value)} is neither the name of a block nor a whole number"
        raise ExpressionError(text, node.column, node.length, "a pattern is made of these, as in ($mixer*$n attn)*")
    return str(int(value))


def _holds(sign: str, left: Node, right: Node, look_up: LookUp) -> bool:
    values = []
    for side in (left, right):
        value = evaluate(side, look_up)
        if sign not in ("==", "!="):
            _check_number(value, side, sign)
        values.append(value)
    return bool(_COMPARISONS[sign](*values))


def _check_number(value: Any, node: Node, sign: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "test for it first, as in: M == 'all' or S <= M"
        raise ExpressionError(f"{_said(value)} is no number, which {sign} needs", node.column, node.length, hint)


def _said(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, dict | list | tuple):
        return "a mapping" if isinstance(value, dict) else "a list"
    return _shown(value).lower()


def _shown(number: float) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes out no integer of thousands of digits
        return "a huge number"


def _gap(sign: str, a: Any, b: Any) -> float:
    measurable = all(isinstance(v, int | float) for v in (a, b))
    if (measurable or sign in ("==", "!=")) and _COMPARISONS[sign](a, b):
        return 0.0
    if sign == "!=" or not measurable:
        return 1.0
    try:
        gap = abs(a - b) / max(abs(a), abs(b), 1)
    except OverflowError:  # an integer beyond all floats, beside a float
        return 1.0
    return max(gap, 1e-6) if math.isfinite(gap) else 1.0

"""Expressions laid out as `ruff format` would: on one line if they fit, else one item a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WIDTH = 120


@dataclass(frozen=True)
class Leaf:
    """A value as text."""

    text: str
    value: Any = None


@dataclass(frozen=True)
class Call:
    """`func(args, key=value)`."""

    func: str | Method
    args: tuple[Expr, ...] = ()
    kwargs: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True)
class Method:
    """`base.name`, to be called."""

    base: Expr
    name: str


@dataclass(frozen=True)
class Items:
    """A list, a tuple, or with keys a dict."""

    opening: str
    items: tuple[Expr, ...]
    closing: str
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Each:
    """`item for ... in ...`, the only argument of a call."""

    item: Expr
    loop: str


Expr = Leaf | Call | Items | Each


def render(expr: Expr) -> str:
    """The expression on one line."""
    if isinstance(expr, Leaf):
        return expr.text
    if isinstance(expr, Each):
        return f"{render(expr.item)} {expr.loop}"
    opening, parts, closing = _parts(expr)
    comma = "," if opening == "(" and len(parts) == 1 else ""
    return f"{opening}{', '.join(prefix + render(part) for prefix, part in parts)}{comma}{closing}"


def layout(expr: Expr, indent: int, before: str = "", after: str = "") -> list[str]:
    """The lines of `before` + expression + `after`, at an indentation."""
    space = " " * indent
    line = space + before + render(expr) + after
    if len(line) <= WIDTH or isinstance(expr, Leaf):
        return [line]
    if isinstance(expr, Each):
        return [*layout(expr.item, indent), space + expr.loop]
    opening, parts, closing = _parts(expr)
    inside = ", ".join(prefix + render(part) for prefix, part in parts)
    lines = [space + before + opening]
    if isinstance(expr, Call) and indent + 4 + len(inside) <= WIDTH:
        lines.append(f"{space}    {inside}")
    else:
        comma = "" if isinstance(expr, Call) and len(parts) == 1 else ","
        for prefix, part in parts:
            lines += layout(part, indent + 4, prefix, comma)
    return [*lines, space + closing + after]


def _parts(expr: Call | Items) -> tuple[str, list[tuple[str, Expr]], str]:
    if isinstance(expr, Items):
        keys = [f"{k}: " for k in expr.keys] if expr.keys is not None else [""] * len(expr.items)
        return expr.opening, list(zip(keys, expr.items, strict=True)), expr.closing
    func = expr.func if isinstance(expr.func, str) else f"{render(expr.func.base)}.{expr.func.name}"
    named = [(f"{k}=", v) for k, v in expr.kwargs]
    return f"{func}(", [*(("", a) for a in expr.args), *named], ")"

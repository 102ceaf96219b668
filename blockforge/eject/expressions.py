"""Constructor calls as expressions, laid out as `ruff format` would: on one line if they fit, else one item a line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from blockforge.blocks.base import Op

WIDTH = 120


@dataclass(frozen=True)
class Definition:
    """What a module of ours, or of a plugin, defines at its top."""

    module: str
    name: str


@dataclass(frozen=True)
class Code:
    """A composed block, as the lines of its `forward`."""

    text: str
    is_head: bool = False


Func = str | Definition | Code
"""What is called."""


@dataclass(frozen=True)
class Leaf:
    """A value as text. `name`: the parameter that it is given to."""

    text: str
    name: str = ""


@dataclass(frozen=True)
class Call:
    """`func(args, key=value)`; an argument without a key is positional."""

    func: Func
    args: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True)
class Items:
    """A list, a tuple, or with keys a dict."""

    opening: str
    items: tuple[Expr, ...]
    closing: str
    keys: tuple[str, ...] = ()


Expr = Leaf | Call | Items


def plain_value(value: Any, name: str, part: Callable[[Any, str], Expr]) -> Expr:
    """A value that has a literal; `part` writes what is inside it. Of any other the text is empty. A block, which is
    not written, leaves its parameters; a part of a spec is the tuple of its values."""
    if isinstance(value, BaseModel) and not isinstance(value, Op):
        return part(tuple(getattr(value, f) for f in type(value).model_fields), name)
    if isinstance(value, Op):
        namespace = Definition("types", "SimpleNamespace")
        return Call(namespace, tuple((f, part(getattr(value, f), f)) for f in type(value).model_fields))
    if isinstance(value, str):
        return Leaf(json.dumps(value, ensure_ascii=False), name)
    if isinstance(value, dict):
        keys = tuple(json.dumps(k, ensure_ascii=False) for k in value)
        return Items("{", tuple(part(v, name) for v in value.values()), "}", keys)
    if dataclasses.is_dataclass(value):
        func = Definition(type(value).__module__, type(value).__name__)
        return Call(func, tuple((f.name, part(getattr(value, f.name), f.name)) for f in dataclasses.fields(value)))
    if isinstance(value, tuple) and type(value) is not tuple:  # a named one
        func = Definition(type(value).__module__, type(value).__name__)
        names = getattr(value, "_fields", (name,) * len(value))
        return Call(func, tuple(("", part(v, f)) for f, v in zip(names, value, strict=True)))
    if isinstance(value, list | tuple) and not all(isinstance(v, int | float | str) for v in value):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return Items(opening, tuple(part(v, name) for v in value), closing)
    is_plain = isinstance(value, bool | int | float | list | tuple) or value is None
    return Leaf(repr(value).replace("'", '"') if is_plain else "", name)


def leaves(expr: Expr) -> Iterator[Leaf]:
    """The values in an expression, in order."""
    if isinstance(expr, Leaf):
        yield expr
    for part in _inside(expr):
        yield from leaves(part)


def calls(expr: Expr) -> Iterator[Call]:
    """The calls in an expression."""
    if isinstance(expr, Call):
        yield expr
    for part in _inside(expr):
        yield from calls(part)


def replaced(expr: Expr, leaf: Callable[[Leaf], Leaf], func: Callable[[Func], Func]) -> Expr:
    """The expression with other values and names."""
    if isinstance(expr, Leaf):
        return leaf(expr)
    if isinstance(expr, Call):
        return Call(func(expr.func), tuple((k, replaced(v, leaf, func)) for k, v in expr.args))
    return Items(expr.opening, tuple(replaced(i, leaf, func) for i in expr.items), expr.closing, expr.keys)


def render(expr: Expr) -> str:
    """The expression on one line."""
    if isinstance(expr, Leaf):
        return expr.text
    opening, parts, closing = _parts(expr)
    comma = "," if opening == "(" and len(parts) == 1 else ""
    return f"{opening}{', '.join(prefix + render(part) for prefix, part in parts)}{comma}{closing}"


def layout(expr: Expr, indent: int, before: str = "", after: str = "") -> list[str]:
    """The lines of `before` + expression + `after`, at an indentation."""
    space = " " * indent
    line = space + before + render(expr) + after
    if len(line) <= WIDTH or isinstance(expr, Leaf):
        return [line]
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


def _inside(expr: Expr) -> tuple[Expr, ...]:
    if isinstance(expr, Call):
        return tuple(v for _, v in expr.args)
    return expr.items if isinstance(expr, Items) else ()


def _parts(expr: Call | Items) -> tuple[str, list[tuple[str, Expr]], str]:
    if isinstance(expr, Items):
        keys = [f"{k}: " for k in expr.keys] or [""] * len(expr.items)
        return expr.opening, list(zip(keys, expr.items, strict=True)), expr.closing
    return f"{expr.func}(", [(f"{k}=" if k else "", v) for k, v in expr.args], ")"

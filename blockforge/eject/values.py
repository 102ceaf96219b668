"""Values of blocks' parameters and places as Python: `Attention(num_heads=4)`, `Shape(14, 14, 256)`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from pydantic import BaseModel

from blockforge.eject.layout import Call, Expr, Items, Leaf
from blockforge.eject.members import quoted

Kept = Callable[[type], set[str]]
"""The members of a class that stay."""


def classes(value: Any) -> Iterator[type]:
    """The classes of ours that `expression(value)` names."""
    if isinstance(value, BaseModel):
        yield type(value)
        for name in type(value).model_fields:
            yield from classes(getattr(value, name))
    elif isinstance(value, tuple):
        if hasattr(value, "_fields"):
            yield type(value)
        for part in value:
            yield from classes(part)


def given(value: BaseModel) -> set[tuple[type, str]]:
    """The parameters of a block, and of blocks inside it, that are not at their defaults."""
    found = set()
    for name, field in type(value).model_fields.items():
        part = getattr(value, name)
        if field.is_required() or part != field.default:
            found.add((type(value), name))
        if isinstance(part, BaseModel):
            found |= given(part)
    return found


def expression(value: Any, kept: Kept, written: Collection[tuple[type, str]] = ()) -> Expr:
    """The value as an expression, without parameters that no code reads or that are at their defaults.

    Args:
        written: parameters to write out all the same.
    """
    if isinstance(value, BaseModel):
        shown = given(value) | set(written)
        parts = {
            name: getattr(value, name)
            for name in type(value).model_fields
            if name in kept(type(value)) and (type(value), name) in shown
        }
        return Call(type(value).__name__, (), tuple((k, expression(v, kept, written)) for k, v in parts.items()))
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return Leaf(f"{type(value).__name__}({', '.join(map(repr, value))})", value)
        return Items("(", tuple(expression(v, kept, written) for v in value), ")")
    return Leaf(quoted(value) if isinstance(value, str) else repr(value), value)

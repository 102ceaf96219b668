"""Values that are known late, where one must be known early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from blockforge.errors import Path
from blockforge.spec.slots import OpSpec
from blockforge.spec.values import Expr

HINT = "names of let, and layer, depth, stage and classes, have values here; let may give a value to this name too"


def message(expr: Expr) -> str:
    """What is wrong with an expression that stands where a value must be known early."""
    if expr.text == f"${min(expr.names())}":
        return f"{expr.text} is a name of the place, which only the maps give"
    return f"{expr.text} depends on ${min(expr.names())}, which only the maps give"


def late_values(value: Any, path: Path = ()) -> Iterator[tuple[Path, Expr]]:
    """The expressions in a resolved part of a spec that stand where the language itself reads a value.

    The parameters of an op are its own: it reads them where it stands, and may read them late.
    """
    if isinstance(value, Expr):
        yield path, value
    elif isinstance(value, BaseModel):
        by_ops = _read_by_ops(value) if isinstance(value, OpSpec) else ()
        for name, field in type(value).model_fields.items():
            if name not in by_ops:
                yield from late_values(getattr(value, name), (*path, field.alias or name))
        for name, item in (value.model_extra or {}).items() if not isinstance(value, OpSpec) else ():
            yield from late_values(item, (*path, name))
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from late_values(item, (*path, key))


def _read_by_ops(part: OpSpec) -> set[str]:
    """The keys that are read where an op stands: what it is made of, and the keys of every op."""
    return {*part.params, *part.read_late, *(("op",) if isinstance(part.op, list | dict) else ())}

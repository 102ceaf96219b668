"""Parameters of a block that are wrong: what pydantic found, in our words, each with its path inside the block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blockforge.described import descriptions
from blockforge.errors import OpError
from blockforge.spec.forms import unknown_key
from blockforge.spec.schema_errors import law, sentence

if TYPE_CHECKING:
    from blockforge.blocks.base import AnyOp

Where = tuple[str | int, ...]
"""The path of a value inside a block's parameters."""


class ParamsError(OpError):
    """All parameters of one block that are wrong, each with its path inside the block."""

    def __init__(self, errors: list[tuple[Where, OpError]]) -> None:
        super().__init__("; ".join(str(e) for _, e in errors))
        self.errors = errors

    def each(self) -> Iterator[tuple[Where, OpError]]:
        """Those of blocks inside the block, too."""
        for where, e in self.errors:
            if isinstance(e, ParamsError):
                yield from ((where + inner, error) for inner, error in e.each())
            else:
                yield where, e


def explained(cls: type[AnyOp], errors: Sequence[Any], params: Mapping[str, Any]) -> list[tuple[Where, OpError]]:
    """Pydantic's errors as ours. Where a value may be of several types, each says why it is not of it: that type counts
    which got furthest with the value, or else knows a law that it breaks; of none of them it should be one of all."""
    furthest: dict[tuple[Where, bool], tuple[tuple[int, bool], list[tuple[Where, Any]]]] = {}
    for error in errors:
        loc, where = tuple(error["loc"]), _written(error, params)
        of_union = where != loc
        rank = (len(where), not _is_of_type(error))
        field = where[:1] if of_union else where, of_union
        if field not in furthest or rank > furthest[field][0]:
            furthest[field] = rank, [(where, error)]
        elif rank == furthest[field][0] or not of_union:
            furthest[field][1].append((where, error))
    told = [_as_one(kept) if of_union else kept for (_, of_union), (_, kept) in furthest.items()]
    return [_explain(cls, where, error) for kept in told for where, error in kept]


def _is_of_type(error: Any) -> bool:
    """Whether it says what kind of value should stand there, and no law that this one breaks."""
    return str(error["type"]).endswith("_type") or error["type"] == "literal_error"


def _as_one(found: list[tuple[Where, Any]]) -> list[tuple[Where, Any]]:
    """What several types say of one value, as one error."""
    *_, (where, last) = found
    laws = [law(error) for at, error in found if at == where and _is_of_type(error)]
    if len(laws) < 2 or None in laws:
        return [(where, last)]
    *most, rest = dict.fromkeys(map(str, laws))
    forms = f"{', '.join(most)}{',' if ' or ' in rest else ' or'} {rest}" if most else rest
    return [(where, {**last, "type": "form_type", "ctx": {"forms": forms}})]


def _written(error: Any, params: Mapping[str, Any]) -> Where:
    """The path of an error without the names of types that pydantic puts into it."""
    where: Where = ()
    value: Any = params
    for part in error["loc"]:
        if isinstance(value, Mapping) and (part in value or error["type"] == "missing"):
            value = value.get(part)
        elif isinstance(part, int) and isinstance(value, list | tuple) and part < len(value):
            value = value[part]
        else:
            continue
        where = (*where, part)
    return where


def _explain(cls: type[AnyOp], where: Where, error: Any) -> tuple[Where, OpError]:
    """One of pydantic's errors as an OpError with its path."""
    if error["type"] == "extra_forbidden":
        hint = unknown_key(str(where[-1]), cls.model_fields, f"parameters of {cls.op}")
        return where, OpError(f"'{cls.op}' has no parameter '{where[-1]}'", hint=hint, code="unknown-key")
    nested = error.get("ctx", {}).get("error")
    if isinstance(nested, OpError):
        return where, nested
    text = descriptions(cls).get(str(where[0])) if where else None
    said = f"{where[0]}: {text}" if text else None
    return where, OpError(sentence(error), hint=said, code="value")

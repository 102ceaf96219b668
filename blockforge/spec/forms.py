"""The forms of an op: a name, a mapping with `op`, or a list of ops, which is a chain."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from blockforge.errors import Path, did_you_mean, nearest
from blockforge.spec.values import Expr, Hole, Ref

OP_NAME = r"^[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)?$"
"""A block's, a definition's, or with a dot that of a definition in a file that is used under a prefix."""
OP_KEYS = ("op", "dim", "when")
"""What may stand beside an op that has no name."""
BRANCH_KEYS = ("norm", "scale", "drop_path", "post_act", "skip")
"""What a branch says beside its op."""
MAX_NAME = 201
_PATTERN = re.compile(OP_NAME)


def wrong_forms(value: Any, at: Path = ()) -> Iterator[InitErrorDetails]:
    """What is wrong with `value` as an op, ops inside it included; the parameters of named ops are theirs to read."""
    if isinstance(value, Hole):
        for i, option in enumerate(value.options):
            yield from wrong_forms(option, (*at, *value.way_to(i)))
        if value.kind != "choice":
            yield _wrong(value, at)
    elif isinstance(value, str):
        if not _PATTERN.match(value) or len(value) > MAX_NAME:
            yield _error("string_pattern_mismatch", value, at, {"pattern": OP_NAME})
    elif isinstance(value, dict):
        yield from _wrong_mapping(value, at)
    elif isinstance(value, list):
        if not value:
            context = {"field_type": "List", "min_length": 1, "actual_length": 0}
            yield _error("too_short", value, at, context)
        for i, part in enumerate(value):
            yield from wrong_forms(part, (*at, i))
    elif not isinstance(value, Ref | Expr):
        yield _wrong(value, at)


def _wrong_mapping(value: dict[Any, Any], at: Path) -> Iterator[InitErrorDetails]:
    if "op" not in value:
        yield _error("missing", value, (*at, "op"))
        return
    yield from wrong_forms(value["op"], (*at, "op"))
    if "from" not in value:  # else an edge, with an op on it
        yield from beside_no_name(value, OP_KEYS, at)
    for key, parameter in value.items():
        if key != "op":
            yield from _wrong_inside(parameter, (*at, key))


def _wrong_inside(value: Any, at: Path) -> Iterator[InitErrorDetails]:
    """Which parameters are ops, only blocks know; a mapping with `op` is one wherever it stands."""
    if isinstance(value, dict) and "op" in value:
        yield from _wrong_mapping(value, at)
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _wrong_inside(part, (*at, key))
    elif isinstance(value, Hole):
        for i, option in enumerate(value.options):
            yield from _wrong_inside(option, (*at, *value.way_to(i)))


def beside_no_name(value: dict[Any, Any], own: tuple[str, ...], at: Path = ()) -> Iterator[InitErrorDetails]:
    """The keys beside an op without a name, which has no parameters, that are not `own` keys of the place."""
    if isinstance(value["op"], list | dict) and "from" not in value:  # with it, it is a member of a graph
        for key in value:
            if key not in own:
                context = {"keys": own, "more": of_branch(str(key)) or ""}
                wrong = PydanticCustomError("extra_forbidden", "no key", context)
                yield InitErrorDetails(type=wrong, loc=(*at, key), input=value[key])


def of_branch(key: str) -> str | None:
    """What to do about a key beside an op that has none of this name, if a branch has."""
    hint = f"a branch of a block has {key}, and so has {{op: residual, of: ..., {key}: ...}}"
    return hint if key in BRANCH_KEYS else None


def unknown_key(key: str, known: Iterable[str], what: str) -> str:
    """What to do about a key beside an op that it does not know."""
    names = list(known)
    if elsewhere := of_branch(key):
        return f"{elsewhere}; {did_you_mean('', names, what=what)}"
    listed = did_you_mean(key, names, what=what)
    own = nearest(key, OP_KEYS) if nearest(key, names) is None else None
    return f"did you mean '{own}'? {listed}" if own is not None else listed


def _wrong(value: Any, at: Path) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("op_type", "an op's form"), loc=at, input=value)


def _error(kind: str, value: Any, at: Path, context: dict[str, Any] | None = None) -> InitErrorDetails:
    return InitErrorDetails(type=kind, loc=at, input=value, ctx=context or {})


def refuse(details: Iterator[InitErrorDetails]) -> None:
    """Raise what was found, for pydantic to put it in its place. Raises: ValidationError."""
    if errors := list(details):
        raise ValidationError.from_exception_data("op", errors)


def _form(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    refuse(wrong_forms(value))
    return value


def _bool_or_form(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, bool | str | dict | list) or value == "none":
        raise PydanticCustomError("form_type", "{forms}", {"forms": "true, false or a block"})
    refuse(iter(()) if isinstance(value, bool) else wrong_forms(value))
    return value


BoolOrForm = WrapValidator(_bool_or_form)
"""`true`, `false`, or an op in any form."""
Form = Annotated[Any, WrapValidator(_form), WithJsonSchema({"form": "op"})]
"""An op in any form; `blockforge.schema` spells out what the JSON schema says of it."""


def _wrong_layer(value: Any, at: Path) -> Iterator[InitErrorDetails]:
    """What is wrong with an item of `layers`. Patterns are read later: with the names that there are."""
    if isinstance(value, Hole) and value.kind == "choice":
        for i, option in enumerate(value.options):
            yield from _wrong_layer(option, (*at, *value.way_to(i)))
    elif not isinstance(value, str):
        yield from wrong_forms(value, at)


def _layers_type(value: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("layers_type", "a pattern"), loc=(), input=value)


def _layers(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, list) and value:
        refuse(error for i, item in enumerate(value) for error in _wrong_layer(item, (i,)))
    elif not isinstance(value, str):
        refuse(wrong_forms(value) if isinstance(value, list) else iter([_layers_type(value)]))
    return value


Layers = Annotated[Any, WrapValidator(_layers), WithJsonSchema({"form": "layers"})]
"""A pattern of names, or a list of patterns and ops."""

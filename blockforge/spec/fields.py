"""Types of the schema's fields. `Open` lets a reference, an expression or a hole stand in place of a value."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, PydanticKnownError
from pydantic_core.core_schema import ErrorType

from blockforge.spec.values import Expr, Hole, Ref

MAX_DIM, MAX_DEPTH, MAX_STAGES, MAX_SIZE, MAX_CLASSES = 65_536, 1000, 256, 16_384, 1_000_000

InitialScale = Annotated[float, Field(ge=-10_000, le=10_000)]
"""What a learnt factor starts at, on a branch and as a part."""

_KNOWN = frozenset(get_args(ErrorType))


def _open_value(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Let references, expressions and holes through; validate each value that a hole could take."""
    if isinstance(value, Hole):
        if errors := _option_errors(value, handler):
            raise ValidationError.from_exception_data("options", errors)
        return value
    return value if isinstance(value, Ref | Expr) else handler(value)


def _option_errors(hole: Hole, handler: ValidatorFunctionWrapHandler) -> list[InitErrorDetails]:
    """What is wrong with the values of a hole, each located at its place in the hole."""
    errors: list[InitErrorDetails] = []
    for i, option in enumerate(hole.options if hole.kind == "choice" else (hole.low, hole.high)):
        prefix = (f"${hole.kind}", i)
        if isinstance(option, Hole):
            errors += [{**e, "loc": (*prefix, *e.get("loc", ()))} for e in _option_errors(option, handler)]
        elif not isinstance(option, Ref | Expr):
            try:
                handler(option)
            except ValidationError as e:
                errors += [_moved(error, (*prefix, *error["loc"])) for error in e.errors()]
    return errors


def _moved(error: Any, loc: tuple[str | int, ...]) -> InitErrorDetails:
    """An error of pydantic's at another place."""
    value = error["input"]
    if error["type"] in _KNOWN:
        return InitErrorDetails(type=error["type"], loc=loc, input=value, ctx=error.get("ctx", {}))
    ours = PydanticCustomError(error["type"], "{text}", {**error.get("ctx", {}), "text": error["msg"]})
    return InitErrorDetails(type=ours, loc=loc, input=value)


def _none(value: Any) -> Any:
    """`none` -> None; YAML's empty value is refused, because it is most often a slip."""
    if value is None:
        raise PydanticCustomError("empty", "there is no value here; write none to leave it out")
    return None if value == "none" else value


def _no_bool(value: Any) -> Any:
    """For Python, true is 1."""
    if isinstance(value, bool):
        raise PydanticKnownError("literal_error", {"expected": "1"})
    return value


Version = Annotated[Literal[1], BeforeValidator(_no_bool)]
"""Of the language."""


class _OpenValidator(WrapValidator):
    """In the JSON schema `{open: ...}`, which `blockforge.schema` spells out."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"open": handler(schema)}


class _NoneValidator(BeforeValidator):
    """In the JSON schema `none` where pydantic says null."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        options = handler(schema)["anyOf"]
        return {"anyOf": [{"const": "none"} if option == {"type": "null"} else option for option in options]}


class _BothValidator(BeforeValidator):
    """In the JSON schema an item, or the list."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        sides = handler(schema)
        return {"anyOf": [sides["items"], sides]}


def _one_or_more(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A list, or what would be its one item; an error is then told without the index that nobody wrote."""
    if isinstance(value, list):
        return handler(value)
    try:
        return handler([value])
    except ValidationError as e:
        raise ValidationError.from_exception_data("item", [_moved(f, f["loc"][1:]) for f in e.errors()]) from None


class _OneOrMoreValidator(WrapValidator):
    """In the JSON schema an item, or the list."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        items = handler(schema)
        return {"anyOf": [items["items"], items]}


def _map_name(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One message for what is neither a name nor a number."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("stage_type", "the name or number of a stage")
    return handler(value) if isinstance(value, str) else value


def number_or(model: type, key: str, value: Any) -> Any:
    """A mapping, or a number, which stands for one under its most frequent key."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {key: value}
    if not isinstance(value, dict | model):
        raise PydanticCustomError("form_type", "{forms}", {"forms": f"a number, or a mapping as {{{key}: 0.1}}"})
    return value


Open = _OpenValidator(_open_value)
OneOrMore = _OneOrMoreValidator(_one_or_more)
OrNone = _NoneValidator(_none)

Both = _BothValidator(lambda v: v if isinstance(v, list) else [v, v])
"""One number for both sides."""

Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]
Depth = Annotated[int, Field(ge=0, le=MAX_DEPTH)]
Side = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NAME = r"^[A-Za-z_][A-Za-z0-9_-]*$"
"""What things may be called, choices among them."""
MAX_NAME = 100
Name = Annotated[str, Field(pattern=NAME, max_length=MAX_NAME)]
_NAMED = {"type": "string", "pattern": NAME, "maxLength": MAX_NAME}
LetName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=MAX_NAME)]
"""What `$name` can say."""
StageName = Annotated[Name, WrapValidator(_map_name), WithJsonSchema({"anyOf": [{"type": "integer"}, _NAMED]})]
"""A stage by its name or its number."""

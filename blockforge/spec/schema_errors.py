"""Turns pydantic's findings into ours: a path, a plain sentence, a suggestion."""

from __future__ import annotations

import types
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from blockforge.errors import Path, Report, did_you_mean


def report_schema_errors(error: ValidationError, model: type[BaseModel], report: Report, prefix: Path = ()) -> None:
    """Add each finding of `error`, which validating against `model` at `prefix` gave."""
    for found in error.errors():
        loc = tuple(p for p in found["loc"] if p != "[key]")
        path: Path = (*prefix, *loc)
        kind, value = found["type"], found["input"]
        if kind == "extra_forbidden":
            hint = did_you_mean(str(loc[-1]), _keys_at(model, loc[:-1]))
            report.error("unknown-key", f"there is no key '{loc[-1]}' here", path, hint=hint, on_key=True)
        elif kind == "missing":
            report.error("missing-key", f"'{loc[-1]}' is missing", path, hint=_describe(model, loc))
        elif kind == "option":
            report.error("value", found["msg"], (*path, *found["ctx"]["at"]), hint=_describe(model, loc))
        else:
            report.error("value", _sentence(found["msg"], value), path, hint=_describe(model, loc))


def _sentence(message: str, value: Any) -> str:
    message = message.replace("Input should be", "this should be").replace("valid dictionary", "mapping")
    message = message.replace("a valid ", "a ").replace(" or instance of OpSpec", "").replace("a list", "a list")
    message = message[0].lower() + message[1:]
    return f"{message}, not {value!r}" if isinstance(value, str | int | float) and len(repr(value)) < 60 else message


def _describe(model: type[BaseModel], loc: Path) -> str | None:
    """What the schema says of the key that `loc` ends in."""
    owner = _model_at(model, loc[:-1])
    if owner is None or not loc or not isinstance(loc[-1], str):
        return None
    field = next((f for n, f in owner.model_fields.items() if loc[-1] in (n, f.alias)), None)
    return f"{loc[-1]}: {field.description}" if field is not None and field.description else None


def _keys_at(model: type[BaseModel], loc: Path) -> list[str]:
    owner = _model_at(model, loc)
    return [f.alias or n for n, f in owner.model_fields.items()] if owner else []


def _model_at(model: type[BaseModel], loc: Path) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`."""
    current: Any = model
    for part in loc:
        current = _unwrap(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
            current = field.annotation if field else None
        elif get_origin(current) in (list, dict):
            current = get_args(current)[-1]
        else:
            return None
    current = _unwrap(current)
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _unwrap(annotation: Any) -> Any:
    """The type inside Annotated and Optional."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation

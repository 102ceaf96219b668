"""Turns pydantic's findings into ours: a path, a plain sentence, a suggestion."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from blockforge.described import descriptions
from blockforge.errors import Path, Report, did_you_mean, nearest
from blockforge.spec.reporting import NOWHERE, Origins, report_at
from blockforge.spec.values import BROKEN, Expr, Hole, Ref
from blockforge.spec.yaml.scalars import shorten

_SAID = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
    "stage_type": "the name or number of a stage",
    "op_type": "a block: a name, {{op: name}} with its parameters, or a list of blocks",
    "layers_type": "a pattern of names, or a list of patterns and blocks",
    "form_type": "{forms}",
}
_NAME = "letters, digits, _ and -, starting with a letter"
_LET_NAME = "letters, digits and _, starting with a letter, so that $name can say it"


_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], tree: Any, report: Report) -> _M:
    """A whole document as its model. Raises: SpecError with all that is wrong with it and what was reported before."""
    try:
        return model.model_validate(tree)
    except ValidationError as e:
        report_schema_errors(e, model, report)
        report.close()
        raise


def report_schema_errors(
    error: ValidationError,
    model: type[BaseModel],
    report: Report,
    prefix: Path = (),
    origins: Origins = NOWHERE,
    more_keys: Iterable[str] = (),
) -> None:
    """Add each finding of `error`, which validating against `model` at `prefix` gave.

    Args:
        more_keys: what may stand at `prefix` beside the model's own fields.
    """
    for details in error.errors(include_url=False):
        if details["input"] is BROKEN:
            continue  # lift said what is wrong with it
        loc = tuple(p for p in details["loc"] if p != "[key]")
        path, kind = (*prefix, *loc), details["type"]
        on_key = kind == "extra_forbidden" or "[key]" in details["loc"]
        if kind == "extra_forbidden":
            message, hint = (
                f"there is no key '{shorten(str(loc[-1]))}' here",
                _known_keys(model, loc, more_keys, **details.get("ctx", {})),
            )
        elif kind == "missing":
            message, hint = f"the key '{loc[-1]}' is missing", _misspelt(details) or _describe(model, loc)
        elif "[key]" in details["loc"]:
            message, hint = (
                f"'{shorten(str(loc[-1]))}' cannot be a name here",
                f"a name is {_name_law(details)}",
            )
        else:
            message, hint = sentence(details), _describe(model, loc)
        code = {"extra_forbidden": "unknown-key", "missing": "missing-key"}.get(kind, "value")
        report_at(report, origins, code, message, path, hint=hint, on_key=on_key)


def _misspelt(details: Any) -> str | None:
    """What to do about a key that is missing where another stands that is nearly called so."""
    keys, missing = details["input"] if isinstance(details["input"], dict) else (), str(details["loc"][-1])
    close = nearest(missing, map(str, keys))
    return f"did you mean it by '{shorten(close)}'?" if close is not None else None


def law(details: Any) -> str | None:
    """`a whole number`, of a value of another type."""
    text = _SAID.get(details["type"])
    return text.format(**details.get("ctx", {})) if text is not None else None


def sentence(details: Any) -> str:
    """`this should be at most 16384, not 99999`."""
    kind, value, context, wanted = details["type"], details["input"], details.get("ctx", {}), law(details)
    if isinstance(value, Hole | Ref | Expr):
        what = "hole" if isinstance(value, Hole) else "reference" if isinstance(value, Ref) else "expression"
        said = f"this should be {wanted}" if wanted else "a value must be written here"
        return f"{said}, not {shown(value)}: no {what} may stand here"
    if value is None and kind != "empty":
        return f"there is no value here; it should be {wanted}" if wanted else "there is no value here"
    if kind == "missing" and isinstance(value, list | tuple):
        return f"this list should have {details['loc'][-1] + 1} items, not {len(value)}"
    if kind in ("too_short", "too_long"):
        side, count = ("least", context["min_length"]) if kind == "too_short" else ("most", context["max_length"])
        items = "item" if count == 1 else "items"
        return f"this list should have at {side} {count} {items}, not {context['actual_length']}"
    if kind == "string_pattern_mismatch":
        return f"'{shorten(str(value))}' is not a name: {_name_law(details)}"
    if wanted is None:
        return str(details["msg"][0].lower() + details["msg"][1:])
    the_text = "the text " if isinstance(value, str) and kind in ("int_type", "float_type", "bool_type") else ""
    left_out = {"list_type": ": [] is an empty one", "dict_type": ": {} is an empty one"}
    empty = left_out.get(kind, "") if value == "none" else ""
    return f"this should be {wanted}, not {the_text}{shown(value)}{empty}"


def _name_law(details: Any) -> str:
    return _NAME if "-]" in details.get("ctx", {}).get("pattern", "") else _LET_NAME


def shown(value: Any) -> str:
    """A value in a message, as YAML says it."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "an empty value"
    if isinstance(value, Expr):
        return shorten(value.text)
    if isinstance(value, Hole | Ref):
        return f"the hole ${value.kind}" if isinstance(value, Hole) else str(value)
    return f"'{shorten(value)}'" if isinstance(value, str) else str(value)[:60]


def _describe(model: type[BaseModel], loc: Path) -> str | None:
    """What the schema says of the key that `loc` ends in, or of the nearest one above it."""
    for end in range(len(loc), 0, -1):
        owner, key = _model_at(model, loc[: end - 1]), loc[end - 1]
        fields = owner.model_fields.items() if owner else ()
        if owner and (name := next((n for n, f in fields if key in (n, f.alias)), None)):
            text = descriptions(owner).get(name)
            return f"{key}: {text}" if text else None
    return None


def _known_keys(
    model: type[BaseModel], loc: Path, beside: Iterable[str], keys: Iterable[str] = (), more: str = ""
) -> str | None:
    """The keys that may stand where `loc` ends: a model's and those `beside` them, or `keys`. `more` is said behind."""
    owner, names = _model_at(model, loc[:-1]), list(keys)
    if not names and owner:
        names = [f.alias or n for n, f in owner.model_fields.items()]
        names += beside if len(loc) == 1 else ()
    hint = did_you_mean(str(loc[-1]), names, what="keys here") if names else None
    return f"{hint}; {more}" if hint and more else hint


def _model_at(model: type[BaseModel], loc: Path) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`; the levels of holes in it are passed over."""
    current: Any = model
    parts = iter(loc)
    for part in parts:
        current = _unwrap(current)
        if isinstance(part, str) and part.startswith("$"):
            next(parts, None)
            continue
        if isinstance(part, str):
            current = _of_item(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
            current = field.annotation if field else None
        elif get_origin(current) in (list, dict):
            current = get_args(current)[-1]
        else:
            return None
    current = _of_item(_unwrap(current))
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None


def _of_item(annotation: Any) -> Any:
    """Of a list the type of its items: a key where an index should be is one of a single item."""
    return _unwrap(get_args(annotation)[-1]) if get_origin(annotation) is list else annotation


def _unwrap(annotation: Any) -> Any:
    """The type inside Annotated and Optional."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(a for a in get_args(annotation) if a is not type(None))
        else:
            return annotation

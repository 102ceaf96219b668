"""The JSON Schema (2020-12) of specs, made from the pydantic models and the registered blocks.

Editors read it to complete and check specs. It says what can be said without compiling: keys, blocks, their
parameters with bounds, references `$name` and holes in place of values. Where a schema cannot be as strict
as the compiler (a block named by a hole takes any block's parameters), it is the more lenient one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import types
from collections.abc import Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from blockforge.blocks import registry
from blockforge.blocks.base import Kind, Op
from blockforge.compiler.graph.connect import RULES
from blockforge.spec.fields import Both, Open, OrNone
from blockforge.spec.model import BranchSpec, ConnectSpec, OpSpec, Spec

Schema = dict[str, Any]

_SLOTS: dict[str, tuple[Kind, ...]] = {
    "stem": ("stem",),
    "downsample": ("downsample",),
    "aggregate": ("aggregator",),
    "norm": ("norm",),
    "stage_norm": ("norm",),
    "head": ("head",),
    "op": ("downsample",),  # of a skip
}
"""Key of the spec that holds a block -> the kinds that may stand there."""

_BRANCH: tuple[Kind, ...] = ("mixer", "ffn")
_REFERENCE = {
    "type": "string",
    "pattern": r"^\$[A-Za-z_][A-Za-z0-9_]*$",
    "description": "A name that `let` gives.",
}
_HOLE = "A value that the search fills: a choice, or a range [low, high], for $int with a step if need be."
_PAIR: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_WHOLE: Schema = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}


def json_schema() -> Schema:
    """The schema: a whole spec, or with `extends` a patch of one."""
    whole, patch = _Writer(), _Writer(partial=True)
    then = patch.model(Spec)
    base = {
        "type": "string",
        "description": "A zoo name or a relative path; this file is laid over that spec.",
    }
    patch.defs["PatchSpec"]["properties"] = {"extends": base, **patch.defs["PatchSpec"]["properties"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BlockForge spec",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": then,
        "else": whole.model(Spec),
        "$defs": {**_holes(), **dict(sorted((whole.defs | patch.defs).items()))},
    }


def schema_text() -> str:
    """The schema as it is packaged beside the zoo (`specs/schema.json`)."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


class _Writer:
    """Writes annotations as schemas; models and slots become `$defs`.

    `partial`: for specs with `extends`. Nothing is required, and a list may be patched by index.
    """

    def __init__(self, partial: bool = False) -> None:
        self.partial = partial
        self.defs: dict[str, Schema] = {}

    # --- models

    def model(self, cls: type[BaseModel]) -> Schema:
        """A reference to the schema of a part of the language."""
        name = f"Patch{cls.__name__}" if self.partial else cls.__name__
        if name not in self.defs:
            self.defs[name] = {}  # known before its fields are written, which may name it
            self.defs[name] = self._object(self._fields(cls), _required(cls), _first_paragraph(cls))
        found: Schema = {"$ref": f"#/$defs/{name}"}
        if hasattr(cls, "_short_form"):  # a bare value stands for the model's first field
            key, field = next(iter(cls.model_fields.items()))
            found = {"anyOf": [self.field(key, field), found]}
        return found

    def _fields(self, cls: type[BaseModel]) -> dict[str, Schema]:
        return {f.alias or name: self.field(name, f) for name, f in cls.model_fields.items()}

    def _object(self, properties: dict[str, Schema], required: Iterable[str], about: str) -> Schema:
        found: Schema = {"type": "object", "description": about, "properties": properties}
        if not self.partial and (needed := sorted(required)):
            found["required"] = needed
        return {**found, "additionalProperties": False}

    def field(self, key: str, field: FieldInfo) -> Schema:
        """A field of a model of the language, with its description and default."""
        return _with_notes(self.value(_annotation(field), key), field)

    # --- slots

    def slot(self, name: str, kinds: tuple[Kind, ...], own: type[BaseModel] = OpSpec) -> Schema:
        """A block of these kinds: its name, or a mapping of its parameters and the keys of `own`."""
        name = f"Patch{name}" if self.partial else name
        if name not in self.defs:
            self.defs[name] = {}
            keys = {k: self.field(k, f) for k, f in own.model_fields.items() if k != "op"}
            blocks = registry.blocks(*kinds)
            shapes = [self._op(op, cls, keys) for op, cls in blocks.items()]
            names = {"enum": list(blocks)}
            shapes.append(self._any_of("op", names, [s["properties"] for s in shapes]))
            self.defs[name] = {"anyOf": [names, *shapes]}
        return {"$ref": f"#/$defs/{name}"}

    def _op(self, name: str, cls: type[Op], keys: dict[str, Schema]) -> Schema:
        about = _first_paragraph(cls)
        properties = {"op": {"const": name, "description": about}, **self._parameters(cls), **keys}
        return {**self._object(properties, (), about), "title": name, "required": ["op", *_required(cls)]}

    def connect(self) -> Schema:
        """A connection rule with its parameters, and the aggregator."""
        name = "PatchConnect" if self.partial else "Connect"
        if name not in self.defs:
            keys = {k: self.field(k, f) for k, f in ConnectSpec.model_fields.items() if k != "rule"}
            shapes = []
            for rule, cls in RULES.items():
                about = _first_paragraph(cls)
                properties = {"rule": {"const": rule, "description": about}, **self._parameters(cls), **keys}
                shapes.append(self._object(properties, {"rule", "aggregate", *_required(cls)}, about) | {"title": rule})
            shapes.append(self._any_of("rule", {"enum": list(RULES)}, [s["properties"] for s in shapes]))
            self.defs[name] = {"anyOf": shapes}
        return {"$ref": f"#/$defs/{name}"}

    def _any_of(self, key: str, names: Schema, known: list[dict[str, Schema]]) -> Schema:
        """A mapping whose op or rule is a hole or a reference, or in a patch the base's."""
        keys = sorted({k for properties in known for k in properties})
        chosen = {"anyOf": [{"$ref": "#/$defs/reference"}, _choice(names)]}
        found: Schema = {"type": "object", "properties": {key: chosen}, "propertyNames": {"enum": keys}}
        return found if self.partial else {**found, "required": [key]}

    def _parameters(self, cls: type[BaseModel]) -> dict[str, Schema]:
        """Parameters of a block or rule: whatever stands in a spec may be a reference or a hole."""
        return {
            name: _with_notes(self.open(self.value(_annotation(f), name, everywhere=True)), f)
            for name, f in cls.model_fields.items()
        }

    # --- values

    def value(self, annotation: Any, key: str, everywhere: bool = False) -> Schema:
        """What may be written for a value of this type. `everywhere`: of a block, where list items are open, too, and
        whatever may be absent may be `none`."""
        metadata: tuple[Any, ...] = ()
        while get_origin(annotation) is Annotated:
            metadata += annotation.__metadata__
            annotation = annotation.__origin__
        found = self._bare(annotation, metadata, key, everywhere)
        if Both in metadata:
            found = {"anyOf": [self.value(get_args(annotation)[0], key), found]}
        return self.open(found) if Open in metadata else found

    def _bare(self, annotation: Any, metadata: tuple[Any, ...], key: str, everywhere: bool) -> Schema:
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in (Union, types.UnionType):
            none = {"const": "none"} if everywhere or OrNone in metadata else {"type": "null"}
            rest = tuple(m for m in metadata if m not in (OrNone, Open))
            options = [
                self.value(Annotated[a, *rest] if rest else a, key, everywhere) for a in args if a is not type(None)
            ]
            return {"anyOf": [*options, none]} if type(None) in args else {"anyOf": options}
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self._part(annotation, key)
        if origin is list or (origin is tuple and args[-1] is Ellipsis):
            items = self.value(args[0], key, everywhere)
            return self._list(_leaf(annotation, metadata), self.open(items) if everywhere else items)
        if origin is dict:
            names = _leaf(args[0], ())
            return {
                "type": "object",
                "propertyNames": names,
                "additionalProperties": self.value(args[1], key),
            }
        return _leaf(annotation, metadata)

    def _part(self, cls: type[BaseModel], key: str) -> Schema:
        if issubclass(cls, BranchSpec):
            return self.slot("branch", _BRANCH, BranchSpec)
        if issubclass(cls, OpSpec):
            kinds = _SLOTS[key]
            return self.slot("_".join(kinds), kinds, cls)
        if issubclass(cls, Op):
            return self.slot(cls.kind, (cls.kind,))
        return self.connect() if issubclass(cls, ConnectSpec) else self.model(cls)

    def open(self, value: Schema) -> Schema:
        """`value`, a reference, or a hole of such values; shared, so named after its content."""
        name = f"open_{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]}"
        ranges = [{"$ref": f"#/$defs/{kind}_range"} for kind in sorted(_ranges(value))]
        self.defs[name] = {"anyOf": [value, {"$ref": "#/$defs/reference"}, _choice(value), *ranges]}
        return {"$ref": f"#/$defs/{name}"}

    def _list(self, leaf: Schema, items: Schema) -> Schema:
        bounds = {k: v for k, v in leaf.items() if k in ("minItems", "maxItems")}
        found = {"type": "array", "items": items, **bounds}
        by_index = {"type": "object", "patternProperties": {"^[0-9]+$": items}, "additionalProperties": False}
        return {"anyOf": [found, by_index]} if self.partial else found


def _ranges(value: Schema) -> set[str]:
    """The ranges that can stand for this value."""
    kinds = {"integer": {"int"}, "number": {"int", "float", "log"}}.get(value.get("type", ""), set())
    return kinds.union(*(_ranges(option) for option in value.get("anyOf", ())))


def _choice(value: Schema) -> Schema:
    """`{$choice: [...]}` of such values; a choice may be a reference or hold holes of its own."""
    item = {"anyOf": [value, {"$ref": "#/$defs/reference"}, {"$ref": "#/$defs/hole"}]}
    return _hole("choice", {"type": "array", "items": item, "minItems": 1})


def _hole(kind: str, args: Schema) -> Schema:
    key = f"${kind}"
    return {"type": "object", "properties": {key: args}, "required": [key], "additionalProperties": False}


def _holes() -> dict[str, Schema]:
    """What is the same wherever it stands: references, ranges, and holes that no type is known for."""
    ranges = {f"{kind}_range": _hole(kind, _WHOLE if kind == "int" else _PAIR) for kind in ("int", "float", "log")}
    choice = _hole("choice", {"type": "array", "minItems": 1})
    hole = {"description": _HOLE, "anyOf": [choice, *({"$ref": f"#/$defs/{name}"} for name in ranges)]}
    return {"reference": _REFERENCE, "hole": hole, **ranges}


def _annotation(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _leaf(annotation: Any, metadata: tuple[Any, ...]) -> Schema:
    """What pydantic says of a type without parts of the language in it."""
    found: Schema = TypeAdapter(Annotated[annotation, *metadata] if metadata else annotation).json_schema()
    return found


def _with_notes(schema: Schema, field: FieldInfo) -> Schema:
    notes: Schema = {}
    if field.description:
        notes["description"] = " ".join(field.description.split())
    if isinstance(field.default, str | int | float | list | tuple):
        notes["default"] = list(field.default) if isinstance(field.default, tuple) else field.default
    return {**notes, **schema}


def _required(cls: type[BaseModel]) -> list[str]:
    return [f.alias or name for name, f in cls.model_fields.items() if f.is_required()]


def _first_paragraph(cls: type) -> str:
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())

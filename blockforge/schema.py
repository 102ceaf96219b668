"""The JSON Schema (2020-12) of specs: pydantic's of the language, with the registered blocks put into it.

Editors read it to complete and check specs. It says what can be said without compiling: keys, blocks, their
parameters with bounds, references `$name`, expressions `$(...)` and holes in place of values. Where a schema cannot be
as strict as the compiler (a block named by a hole takes any block's parameters), it is the more lenient one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from blockforge.blocks import registry
from blockforge.blocks.base import Op
from blockforge.compiler.graph.connect import RULES
from blockforge.spec import definitions, model, slots, sources
from blockforge.spec.definitions import LIBRARY_KEYS, LibrarySpec
from blockforge.spec.fields import NAME
from blockforge.spec.forms import OP_NAME
from blockforge.spec.glossary import REQUIRED, Glossary
from blockforge.spec.load import Library
from blockforge.spec.model import ConnectSpec, Spec
from blockforge.spec.slots import OpSpec
from blockforge.spec.sources import EdgeOpSpec
from blockforge.spec.values import plain

Schema = dict[str, Any]

_REFERENCE: Schema = {
    "type": "string",
    "pattern": r"^\$([A-Za-z_][A-Za-z0-9_]*|\(.*\))$",
    "description": "A name that `let` or the place gives, or an expression of such names: $(2 * w).",
}
_HOLE = "A value that the search fills: a choice, or a range [low, high], for $int with a step if need be."
_OP = "A block or a definition by name, with parameters or without; a list of them, one after the other."
_EXTENDS: Schema = {
    "type": "string",
    "description": "A zoo name or a relative path; this file is laid over that spec.",
}
_REWRITTEN = ("title", "default", "$defs", "$ref", "open", "form", "patternProperties")
"""Words of pydantic's that `_Writer` says in its own way."""
_LANGUAGE: dict[str, type[BaseModel]] = {
    name: part
    for name, part in (vars(slots) | vars(definitions) | vars(sources) | vars(model)).items()
    if isinstance(part, type) and issubclass(part, slots.Model)
}


def json_schema(spec: Spec | Library | None = None) -> Schema:
    """The schema: a whole spec, with `extends` a patch of one, or a file of definitions.

    Args:
        spec: what gives definitions that are known as blocks are. Without it, a spec that has any may call ops by any
            name.
    """
    if isinstance(spec, Spec):
        glossary = Glossary.of(spec.lifted)
    else:
        glossary = spec.glossary if spec is not None else Glossary()
    whole, patch = _Writer(glossary), _Writer(glossary, partial=True)
    writers, rule = [whole, patch], _spec_or_patch(whole, patch)
    if spec is None:
        writers += [_Writer(glossary, strict=whole), _Writer(glossary, partial=True, strict=patch)]
        defines = {"anyOf": [{"required": ["define"]}, {"required": ["use"]}]}
        rule = {"if": defines, "then": _spec_or_patch(*writers[2:]), "else": rule}
    defs = {name: schema for writer in writers for name, schema in writer.defs.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BlockForge spec",
        "type": "object",
        **_library_or(rule, whole),
        "$defs": {**_holes(), **_forms(), **dict(sorted(defs.items()))},
    }


def _spec_or_patch(whole: _Writer, patch: _Writer) -> Schema:
    patched = patch.definition("Spec")
    extending = {**patched, "properties": {"extends": _EXTENDS, **patched["properties"]}}
    return {"if": {"required": ["extends"]}, "then": extending, "else": whole.definition("Spec")}


def _library_or(rule: Schema, writer: _Writer) -> Schema:
    """The rule of a file of definitions where there is nothing else in it."""
    written = [{"required": ["define"]}, {"required": ["use"]}]
    alone = {"propertyNames": {"enum": list(LIBRARY_KEYS)}, "anyOf": written}
    return {"if": alone, "then": writer.definition("LibrarySpec"), "else": rule}


def schema_text(spec: Spec | Library | None = None) -> str:
    """The schema as it is packaged beside the zoo (`specs/schema.json`), or that for what gives definitions."""
    return json.dumps(json_schema(spec), indent=1, ensure_ascii=False) + "\n"


class _Writer:
    """Writes the parts of the language as `$defs`.

    `partial`: for specs with `extends`. Nothing is required, and a list may be patched by index. `strict`: the writer
    for specs in which only blocks and what is in `glossary` have names; this one's ops may have any.
    """

    def __init__(self, glossary: Glossary, partial: bool = False, strict: _Writer | None = None) -> None:
        self.glossary, self.partial, self.strict = glossary, partial, strict
        self.prefix = ("Patch" if partial else "") + ("Defining" if strict else "")
        self.known = {"Spec": Spec.model_json_schema(), "LibrarySpec": LibrarySpec.model_json_schema()}
        self.known |= self.known["Spec"]["$defs"]
        self.kinds = {c.__name__: b.kind for b in registry.blocks().values() for c in b.__mro__ if hasattr(c, "kind")}
        self.defs: dict[str, Schema] = {}

    def refer(self, name: str, schema: Schema | None = None) -> Schema:
        """A reference to a part of the language, or to `schema` under this name."""
        shown = f"{self.prefix}{name}"
        if shown not in self.defs:
            self.defs[shown] = {}  # known before it is written, which may name it
            self.defs[shown] = self.definition(name) if schema is None else schema
        return {"$ref": f"#/$defs/{shown}"}

    def definition(self, name: str) -> Schema:
        """What a class is called in pydantic's schema: a part of the language, or what a block's parameter may be."""
        if name in self.kinds:
            return self.one_of("op", registry.blocks(self.kinds[name]), {})
        cls, written = _LANGUAGE.get(name, BaseModel), self.write(self.known[name])
        if self.partial:
            written.pop("required", None)
            written.pop("oneOf", None)
        if issubclass(cls, EdgeOpSpec):
            return {"$ref": "#/$defs/op"}
        if issubclass(cls, OpSpec) and self.strict is not None:
            return {"anyOf": [self.strict.refer(name), {"$ref": "#/$defs/op"}]}
        if issubclass(cls, OpSpec):
            return self.one_of("op", registry.blocks(*cls.kinds), written["properties"])
        if issubclass(cls, ConnectSpec):
            return self.one_of("rule", RULES, written["properties"])
        if hasattr(cls, "_short_form"):  # a bare value stands for the model's first field
            return {"anyOf": [next(iter(written["properties"].values())), written]}
        return written

    def one_of(self, key: str, classes: Mapping[str, type[BaseModel]], own: Schema) -> Schema:
        """A block or rule by its name, or a mapping of its parameters and the slot's `own` keys."""
        own = {name: value for name, value in own.items() if name != key}
        shapes = self.composed(own) if key == "op" else []
        names = {"enum": [*classes, *(self.glossary.names() if key == "op" else ())]}
        for name, cls in classes.items():
            schema = cls.model_json_schema()
            self.known |= schema.get("$defs", {})
            for field, default in _blocks(cls).items():
                schema["properties"][field]["default"] = default
            block = self.write(schema, in_block=True)
            about = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
            properties = {key: {"const": name, "description": about}, **block.get("properties", {}), **own}
            required = [key, *block.get("required", ()), *(name for name in own if name == "aggregate")]
            shapes.append({**block, "title": name, "description": about, "properties": properties})
            shapes[-1]["required"] = [key] if self.partial else required
        # what a hole or a reference names, or in a patch the base, may have the parameters of any
        keys = sorted({name for shape in shapes for name in shape.get("properties", ())})
        chosen = {"anyOf": [{"$ref": "#/$defs/reference"}, _choice(names)]}
        unnamed: Schema = {"type": "object", "properties": {key: chosen}, "propertyNames": {"enum": keys}}
        shapes.append(unnamed if self.partial else {**unnamed, "required": [key]})
        return {"anyOf": [names, *shapes] if key == "op" else shapes}

    def composed(self, own: Schema) -> list[Schema]:
        """The ops that are no block: lists, what `op` holds another op in, what has parts, and definitions."""
        op, closed = {"$ref": "#/$defs/op"}, {"type": "object", "additionalProperties": False}
        chain = {"type": "array", "items": op, "minItems": 1}
        nested = {**closed, "properties": {"op": {"type": ["array", "object"], **op}, **own}, "required": ["op"]}
        parts: Schema = {"type": "object", "properties": own, "required": ["op", "of"]}
        shapes = [chain, nested, parts]
        for name in self.glossary.names():
            definition = self.glossary.find(name)
            assert definition is not None
            params = {
                key: {} if value == REQUIRED else {"default": plain(value)} for key, value in definition.params.items()
            }
            required = [key for key, value in definition.params.items() if value == REQUIRED]
            properties = {"op": {"const": name}, **params, **own}
            shapes.append({**closed, "title": name, "properties": properties})
            shapes[-1]["required"] = ["op"] if self.partial else ["op", *required]
        return shapes

    def write(self, schema: Schema, in_block: bool = False) -> Schema:
        """Pydantic's schema as ours.

        Args:
            in_block: of a block or a rule, where every value and item may be a reference or a hole, and whatever may be
                absent may be `none`.
        """
        if in_block and schema == {"type": "null"}:
            return {"const": "none"}
        written = {key: value for key, value in schema.items() if key not in _REWRITTEN}
        if isinstance(schema.get("default"), str | int | float | list):
            written["default"] = schema["default"]
        if "description" in schema:
            written["description"] = " ".join(schema["description"].split())
        if "$ref" in schema:
            written |= self.refer(schema["$ref"].rpartition("/")[2])
        if "open" in schema:
            written |= self.open(self.write(schema["open"], in_block))
        if "form" in schema:
            written["$ref"] = f"#/$defs/{schema['form']}"
        if "anyOf" in schema:
            written["anyOf"] = [self.write(option, in_block) for option in schema["anyOf"]]
        if "properties" in schema:
            written["properties"] = {key: self.field(value, in_block) for key, value in schema["properties"].items()}
        for pattern, value in schema.get("patternProperties", {}).items():  # names of ours; others are refused
            written["propertyNames"] = {"pattern": pattern, **schema.get("propertyNames", {})}
            written["additionalProperties"] = self.write(value, in_block)
        return self.list(written, schema, in_block) if schema.get("type") == "array" else written

    def field(self, schema: Schema, in_block: bool) -> Schema:
        """The value of a key, with its description and default."""
        written = self.write(schema, in_block)
        return {**_notes(written), **self.open(written)} if in_block else written

    def list(self, written: Schema, schema: Schema, in_block: bool) -> Schema:
        """A list with its items; in a patch also a mapping of its items by index."""
        alike = written.pop("prefixItems", None)  # of a list of so many
        item = self.write(schema["items"] if alike is None else alike[0], in_block)
        written["items"] = self.open(item) if in_block else item
        for bound in ("min", "max"):  # pydantic counts the items of a list in a union as letters
            if f"{bound}Length" in written:
                written[f"{bound}Items"] = written.pop(f"{bound}Length")
        if not self.partial:
            return written
        by_index = {"patternProperties": {"^[0-9]+$": written["items"]}, "additionalProperties": False}
        return {**_notes(written), "anyOf": [written, {"type": "object", **by_index}]}

    def open(self, value: Schema) -> Schema:
        """`value`, a reference or an expression, or a hole of such values; shared, so named after its content."""
        name = f"open_{hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]}"
        ranges = [{"$ref": f"#/$defs/{kind}_range"} for kind in sorted(self.ranges(value))]
        return self.refer(name, {"anyOf": [value, {"$ref": "#/$defs/reference"}, _choice(value), *ranges]})

    def ranges(self, value: Schema) -> set[str]:
        """The ranges that can stand for this value."""
        if "$ref" in value:
            value = self.defs.get(value["$ref"].rpartition("/")[2], {})
        kinds = {"integer": {"int"}, "number": {"int", "float", "log"}}.get(value.get("type", ""), set())
        return kinds.union(*map(self.ranges, value.get("anyOf", ())))


def _blocks(cls: type[BaseModel]) -> dict[str, Any]:
    """The defaults that are blocks, as a spec says them."""
    return {n: f.default.as_parameter() for n, f in cls.model_fields.items() if isinstance(f.default, Op)}


def _notes(written: Schema) -> Schema:
    """What a schema says to people, taken out of it."""
    return {key: written.pop(key) for key in ("description", "default") if key in written}


def _choice(value: Schema) -> Schema:
    """`{$choice: [...]}` of such values; a choice may be a reference or hold holes of its own."""
    item = {"anyOf": [value, {"$ref": "#/$defs/reference"}, {"$ref": "#/$defs/hole"}]}
    return _hole("choice", _listed(item))


def _listed(item: Schema) -> Schema:
    """Choices in a list, or under names of their own."""
    named = {
        "type": "object",
        "additionalProperties": item,
        "propertyNames": {"pattern": NAME},
        "minProperties": 1,
    }
    return {"anyOf": [{"type": "array", "items": item, "minItems": 1}, named]}


def _hole(kind: str, args: Schema) -> Schema:
    key = f"${kind}"
    return {"type": "object", "properties": {key: args}, "required": [key], "additionalProperties": False}


def _holes() -> dict[str, Schema]:
    """What is the same wherever it stands: references, ranges, and holes that no type is known for."""
    pair = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    ranges = {f"{kind}_range": _hole(kind, pair) for kind in ("float", "log")}
    ranges["int_range"] = _hole("int", {**pair, "items": {"type": "integer"}, "maxItems": 3})
    choice = _hole("choice", _listed({}))
    hole = {"description": _HOLE, "anyOf": [choice, *({"$ref": f"#/$defs/{name}"} for name in ranges)]}
    return {"reference": _REFERENCE, "hole": hole, **ranges}


def _forms() -> dict[str, Schema]:
    """Ops of any form, definitions of them, and the files that hold some."""
    op, reference, hole = ({"$ref": f"#/$defs/{name}"} for name in ("op", "reference", "hole"))
    name = {"type": "string", "pattern": OP_NAME}
    chain = {"type": "array", "items": op, "minItems": 1}
    called = {"type": "object", "properties": {"op": op}, "required": ["op"]}
    params = {"type": "object", "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$"}}
    closed = {"type": "object", "properties": {"params": params, "body": op}, "additionalProperties": False}
    define = {"type": "object", "additionalProperties": {"$ref": "#/$defs/definition"}}
    file = {"type": "string", "minLength": 1}
    prefixed = {"type": "object", "additionalProperties": file}
    read = {"define": define, "use": {"$ref": "#/$defs/use"}, "as": {"type": "string"}}
    inlined = {"type": "object", "properties": read, "additionalProperties": False}
    layer = {"anyOf": [{"type": "string", "minLength": 1}, op]}
    return {
        "layers": {"anyOf": [layer["anyOf"][0], {"type": "array", "items": layer, "minItems": 1}]},
        "op": {"description": _OP, "anyOf": [name, called, chain, reference, hole]},
        "definition": {"anyOf": [op, {**closed, "required": ["body"]}]},
        "use": {"anyOf": [{"type": "array", "items": {"anyOf": [file, inlined, prefixed]}}, prefixed]},
    }

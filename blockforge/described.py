"""Models whose fields are described by the text below each of them, in error hints, pages and JSON Schema.

Pydantic reads such texts itself (`use_attribute_docstrings`), but of every class as it is made: that was a third of the
time in which blocks are imported. Here they are read of the classes that are asked for.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic_core import CoreSchema


@functools.cache
def descriptions(cls: type[BaseModel]) -> dict[str, str]:
    """Of each field that is described: what it means. A field that is declared anew without a text keeps its base's."""
    below: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        below |= _below(base) if "__annotations__" in vars(base) else {}
    texts = {name: field.description or below.get(name) for name, field in cls.model_fields.items()}
    return {name: text for name, text in texts.items() if text}


@functools.cache
def _below(cls: type) -> dict[str, str]:
    """The text below each annotated name of a class; none where its source cannot be read."""
    made = _classes(cls.__module__).get(cls.__qualname__)
    return {
        one.target.id: inspect.cleandoc(text.value.value)
        for one, text in itertools.pairwise(made.body if made else ())
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """The classes that the source of a module makes, by qualified name."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}
    classes = {}
    open_nodes: list[tuple[str, ast.AST]] = [("", tree)]
    for before, node in open_nodes:  # grows by what stands in each
        for inner in ast.iter_child_nodes(node):
            prefix = before
            if isinstance(inner, ast.ClassDef):
                classes[before + inner.name] = inner
                prefix = f"{before}{inner.name}."
            elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                prefix = f"{before}{inner.name}.<locals>."
            if isinstance(inner, ast.stmt):
                open_nodes.append((prefix, inner))
    return classes


class Described(BaseModel):
    """Base of models whose JSON Schema says what stands below their fields."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        given = handler(schema)
        properties = handler.resolve_ref_schema(given).get("properties", {})
        for name, text in descriptions(cls).items():
            key = cls.model_fields[name].alias or name
            if key in properties:
                properties[key].setdefault("description", text)
        return given

"""Models whose fields are described by the text below each of them, in error hints, pages and JSON Schema.

Pydantic reads such texts itself (`use_attribute_docstrings`), but of every class as it is made: that was a third of the
time in which blocks are imported. Here they are read of the classes that are asked for.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
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


def _below(cls: type) -> dict[str, str]:
    """The text below each annotated name of a class; none where its source cannot be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        one.target.id: inspect.cleandoc(text.value.value)
        for one, text in itertools.pairwise(body)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


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

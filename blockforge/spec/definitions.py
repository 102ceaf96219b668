"""`define` and `use` in the schema: what a definition may look like."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidatorFunctionWrapHandler, WithJsonSchema, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from blockforge.spec.fields import LetName, Name, Version
from blockforge.spec.forms import Form, refuse, wrong_forms
from blockforge.spec.slots import Model

MAX_DEFINITIONS = 256
"""Of one file."""


class DefinitionSpec(Model):
    """An op with parameters: `{params: {mid: required, act: relu}, body: [{op: linear, dim: $mid}, $act]}`."""

    params: Annotated[dict[LetName, Any], Field(max_length=MAX_DEFINITIONS)] = {}
    """The parameters, each with its default or `required`; a default may name those before it."""
    body: Form
    """The op; names in it are the parameters and those of the place where it stands."""


def _definition(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, dict) and "op" not in value:
        unknown = PydanticCustomError("extra_forbidden", "no key", {"keys": ("op", *DefinitionSpec.model_fields)})
        others = value.keys() - DefinitionSpec.model_fields.keys()
        refuse(InitErrorDetails(type=unknown, loc=(key,), input=value[key]) for key in sorted(others, key=str))
        DefinitionSpec.model_validate(value)
    else:
        refuse(wrong_forms(value))
    return value


_Definition = Annotated[Any, WrapValidator(_definition), WithJsonSchema({"form": "definition"})]
Definitions = Annotated[dict[Name, _Definition], Field(max_length=MAX_DEFINITIONS)]


Inlined = WithJsonSchema({"form": "use"})
"""In the JSON schema also what stands there before a spec is loaded: names of files."""


class UseSpec(Model):
    """A file of definitions, with what it holds."""

    define: Definitions = {}
    """Its definitions."""
    use: Annotated[list[UseSpec], Inlined] = []
    """The files that it uses itself."""
    as_: Name | None = Field(default=None, alias="as")
    """Prefix of its names: `m` for `m.conv_bn`; absent: none."""


class LibrarySpec(Model):
    """A file of definitions, as it is written: `{blockforge: 1, define: {...}}`. Specs read it by `use`."""

    blockforge: Version
    """Version of the language."""
    define: Definitions = {}
    """Its definitions."""
    use: Annotated[list[UseSpec], Inlined] = []
    """The files that it uses itself."""


LIBRARY_KEYS = tuple(LibrarySpec.model_fields)


def is_library(tree: Any) -> bool:
    """Whether a document is a file of definitions, and no network."""
    return isinstance(tree, dict) and bool(tree.keys() & {"define", "use"}) and tree.keys() <= set(LIBRARY_KEYS)

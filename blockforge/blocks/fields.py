"""Types of block parameters: names for what many blocks take, with their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

from blockforge.blocks import registry
from blockforge.blocks.base import Act, Kind, Norm
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.norm import is_op, norm_of
from blockforge.blocks.compose.written import freeze
from blockforge.errors import OpError

Count = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Eps = Annotated[float, Field(gt=0, le=1)]
KernelSize = Annotated[int, Field(ge=1, le=99)]


def _odd(value: int) -> int:
    if isinstance(value, int) and value % 2 == 0:
        raise OpError(
            f"kernel size {value} is even", hint=f"{value - 1} or {value + 1} keep the map's size", code="value"
        )
    return value


OddKernel = Annotated[KernelSize, BeforeValidator(_odd)]
"""An odd kernel size, so that padding on both sides keeps the map's size."""


def _named(value: Any, kind: Kind, what: str) -> Any:
    """A block of a kind by its name or as `{op: ..., ...}`."""
    if isinstance(value, str):
        value = {"op": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("op"), str):
        raise PydanticCustomError(kind, "{what}", {"what": what})
    return registry.make(value["op"], {k: v for k, v in value.items() if k != "op"}, kind)


def _norm(value: Any) -> Any:
    """A norm by its name, as `{op: ..., ...}`, a list of ops, or `none`."""
    if value is None or isinstance(value, Norm) or value == "none":
        return None if value == "none" else value
    if not is_op(value):
        raise PydanticCustomError("norm", "{what}", {"what": "a norm is a name, {op: ...}, a list of ops, or none"})
    return norm_of(Bound(freeze(value)))


NormParam = Annotated[Norm | None, BeforeValidator(_norm)]
"""A normalisation inside a block, or ops in its place, or none."""


def _act(value: Any) -> Any:
    """An activation by its name or as `{op: ..., ...}`; `none` is `identity`."""
    if value is None or isinstance(value, Act):
        return value
    return _named("identity" if value == "none" else value, "act", "an activation is a name, {op: ...}, or none")


class _ActValidator(BeforeValidator):
    """In the JSON schema an activation, or `none`."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"const": "none"}, handler(schema)]}


ActParam = Annotated[Act, _ActValidator(_act)]
"""An activation inside a block."""

"""Blocks that are written in YAML: packaged definitions, each with a kind and with parameters that are checked.

A file of `blockforge.definitions.blocks` says what a block's Python would: its kind, its docstring, its parameters with
types, defaults and meanings, and a body, which is an op of the language whose names are the parameters and those of its
place. The file's name is the block's. Shape, costs, memory and module follow from the body's parts.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from blockforge.blocks import registry
from blockforge.blocks.base import FFN, AnyOp, Downsample, Mixer, Place, Shape, Stem
from blockforge.blocks.compose.expand import Builder
from blockforge.blocks.compose.frame import Bound, Frame
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.written import Map, freeze, parts_of
from blockforge.blocks.fields import ActParam, Count, KernelSize, NormParam, OddKernel, Ratio, Width
from blockforge.blocks.layers import ConvInit
from blockforge.blocks.strides import VERY_FAR
from blockforge.errors import OpError, Path, Report
from blockforge.plugins import import_all
from blockforge.spec.references import lift
from blockforge.spec.values import names_in
from blockforge.spec.yaml.loader import load_text

_PARAMS = "params"
HOME = "blockforge.definitions.blocks"
_KINDS: dict[str, type[AnyOp]] = {"mixer": Mixer, "ffn": FFN, "stem": Stem, "downsample": Downsample}
_TYPES: dict[str, Any] = {
    "act": ActParam, "norm": NormParam, "flag": bool, "whole": int, "count": Count, "width": Width, "ratio": Ratio,
    "kernel": KernelSize, "odd_kernel": OddKernel, "conv_init": ConvInit,
}  # fmt: skip
"""What a parameter may be, as the files name it; `or none` behind it: it may also be absent."""


class Param(BaseModel):
    """A parameter, as a file writes it.

    Attributes:
        from_, to: bounds of a whole number.
        silent: came later than the block, and leaves no trace where it says nothing: hashes stay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    is_: str = Field(alias="is")
    default: Any
    about: str
    from_: int | None = Field(default=None, alias="from")
    to: int | None = None
    silent: bool = False

    @property
    def type(self) -> Any:
        name, _, absent = self.is_.partition(" or ")
        annotation = _TYPES[name]
        if self.from_ is not None or self.to is not None:
            annotation = Annotated[annotation, Field(ge=self.from_, le=self.to)]
        return annotation | None if absent else annotation


class File(BaseModel):
    """A file of a block."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str
    about: str
    params: dict[str, Param]
    body: Any


class Defined(OfParts[*Place]):
    """What all such blocks do, beside the base class of their kind."""

    body: ClassVar[Any]
    """The op that it is made of, frozen."""

    def as_program(self, *place: *Place) -> Program:
        return _program(self, *place)

    def total_stride(self, shape: Shape, dim: int) -> int:
        """As any `Reducing` block's; of a packaged one, whose parts no map changes, these say it of another."""
        far = cast(Any, self).as_program(shape, dim).shape_on(Shape(VERY_FAR, VERY_FAR, shape.dim))
        stride: int = round(VERY_FAR / far.height)
        return stride


@functools.lru_cache(4096)
def _program(op: Defined[*tuple[Any, ...]], shape: Shape, dim: int | None = None) -> Program:
    """See `Defined.as_program`; equal blocks at equal places are written out once."""
    body, names = op.body, tuple(_names(op))
    build = Builder(shape)
    try:
        asked = dim if dim is not None else shape.dim
        return build.finish(build.add(Bound(body, Frame(names).on(shape, dim)), 0, asked, ()))
    except OpError as e:
        if e.code == "map-too-small":  # no part of it is known where it is written
            raise OpError(f"'{op.op}' leaves nothing of the map", hint=e.hint, code=e.code) from None
        raise OpError(str(e), hint=e.hint, param=_param_at(op, e.at), code=e.code) from None


def _names(op: Defined[*tuple[Any, ...]]) -> Iterator[tuple[str, Any]]:
    """The parameters as names of the body; blocks among them as they are written."""
    for name, value in {**dict.fromkeys(op.silent), **op.parameters_dict()}.items():
        yield name, Bound(freeze(value, (_PARAMS, name))) if isinstance(value, dict | list) else value


def _param_at(op: AnyOp, at: Path | None) -> str | None:
    """The block's parameter that stands at a place of its body, or of which what stands there is computed."""
    if not at:
        return None
    if at[0] == _PARAMS:
        return str(at[1])
    value: Any = cast(Any, op).body
    for part in at[1:]:  # without the key that holds the body
        inner = dict(value.items if isinstance(value, Map) else enumerate(getattr(value, "items", ())))
        if part not in inner:
            break
        value = inner[part]
    named = [name for part in parts_of(value) for name in sorted(names_in(part)) if name in type(op).model_fields]
    return named[0] if named else None


def _class(name: str, text: str) -> type[AnyOp]:
    """The block that a file says."""
    document = load_text(text, f"{name}.yaml")
    file = File.model_validate(document.tree)
    report = Report(document.locs)
    body = freeze(lift(file.body, report, ("body",)), ("body",))
    report.close()
    fields: dict[str, Any] = {
        key: (p.type, Field(TypeAdapter(p.type).validate_python(p.default), description=p.about))
        for key, p in file.params.items()
    }
    base = _KINDS[file.kind]
    title = "".join(part.title() for part in name.split("_"))
    bases = cast(Any, (type(title, (Defined, base), {"__module__": __name__, "__doc__": file.about}),))
    made: type[AnyOp] = create_model(title, __base__=bases, __module__=__name__, __doc__=file.about, **fields)
    cast(Any, made).body = body
    cast(Any, made).silent = frozenset(key for key, p in file.params.items() if p.silent)
    setattr(sys.modules[__name__], title, made)  # where pickles look for it
    return made


def _register() -> None:
    """Register the packaged ones. Their defaults name norms and activations."""
    for kind in ("acts", "norms"):
        import_all(f"blockforge.blocks.{kind}")
    for file in sorted(resources.files(HOME).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            name = file.name.removesuffix(".yaml")
            cls = _class(name, file.read_text(encoding="utf-8"))
            getattr(registry, cls.kind)(name)(cls)


_register()

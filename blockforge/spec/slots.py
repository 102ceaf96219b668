"""The places of a spec where a block stands: its name with its parameters. Which there are, the registry knows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, model_validator

from blockforge.described import Described
from blockforge.spec.fields import Dim, Open, OrNone
from blockforge.spec.forms import OP_KEYS, Form, beside_no_name, refuse, wrong_forms
from blockforge.spec.values import Expr, Hole, Ref

Kind = Literal["mixer", "ffn", "norm", "act", "stem", "downsample", "aggregator", "head", "part", "join"]
"""What a block does in a network."""


class Model(Described):
    """Base of the schema's parts: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class OpSpec(Model):
    """A building block and its parameters: `{op: sam, num_heads: 4}`, or just `sam`; or a list of them, a chain."""

    model_config = ConfigDict(extra="allow")
    kinds: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of blocks that may stand here; none: any."""
    own: ClassVar[frozenset[str]] = frozenset({"op"})
    """The keys of every op that mean something else here."""
    read_late: ClassVar[frozenset[str]] = frozenset()
    """Keys of the place whose values may depend on the map that is read there."""

    op: Form
    """Name of a block or of a definition; or a list of ops, one behind the other."""
    dim: Any = None
    """The width it is asked to give; absent: what its place asks for."""
    when: Any = True
    """Where this is false, the op is absent."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict | cls):
            refuse(wrong_forms(value))  # here, for the key `op` is not written
        if isinstance(value, str | Ref | Expr | Hole | list):
            return {"op": value}
        if isinstance(value, dict) and "op" in value:
            refuse(beside_no_name(value, tuple(cls.model_fields)))
        return value

    @property
    def params(self) -> dict[str, Any]:
        """What stands beside the op and is no key of its place: the block's own parameters, `dim` and `when`."""
        given = {key: getattr(self, key) for key in OP_KEYS if key in self.model_fields_set - self.own}
        return {**given, **(self.model_extra or {})}

    def written(self) -> dict[str, Any]:
        """The op as it is written, without the keys of the place it stands in."""
        return {"op": self.op, **self.params}


class StemSpec(OpSpec):
    """The block from the image to the first stage."""

    kinds = ("stem",)
    own = frozenset({"op", "dim"})

    dim: Annotated[Dim | None, Open] = None
    """Channels, where stage 0 has a `downsample` of its own behind the stem; absent: those of stage 0."""

    @model_validator(mode="before")
    @classmethod
    def _asked_inside(cls, value: Any) -> Any:
        """A width that is computed where the op stands is the op's to read: `{op: conv, dim: $out}`."""
        return {"op": value} if isinstance(value, dict) and isinstance(value.get("dim"), Expr) else value


class DownsampleSpec(OpSpec):
    """A block that makes a map smaller."""

    kinds = ("downsample",)


class AggregatorSpec(OpSpec):
    """A block that joins maps."""

    kinds = ("aggregator",)


class NormSpec(OpSpec):
    """A normalisation."""

    kinds = ("norm",)


class ActSpec(OpSpec):
    """An activation."""

    kinds = ("act",)


OptionalStem = Annotated[StemSpec | None, OrNone, Open]
OptionalDownsample = Annotated[DownsampleSpec | None, OrNone, Open]
OptionalNorm = Annotated[NormSpec | None, OrNone, Open]
OptionalAct = Annotated[ActSpec | None, OrNone, Open]


class NormedOpSpec(OpSpec):
    """A block behind a norm."""

    norm: OptionalNorm = None
    """Normalisation before the op, or none; absent: the one in `defaults`."""

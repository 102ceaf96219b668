"""The places of a spec where a block stands: its name with its parameters. Which there are, the registry knows."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from blockforge.spec.fields import Dim, Name, Open, OrNone
from blockforge.spec.values import Expr, Hole, Ref

Kind = Literal["mixer", "ffn", "norm", "stem", "downsample", "aggregator", "head", "part", "join"]
"""What a block does in a network."""


class Model(BaseModel):
    """Base of the schema's parts: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class OpSpec(Model):
    """A building block and its parameters: `{op: sam, num_heads: 4}`, or just `sam`."""

    model_config = ConfigDict(extra="allow")
    kinds: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of blocks that may stand here; none: any."""

    op: Annotated[Name, Open]
    """Name of a registered block."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"op": value} if isinstance(value, str | Ref | Expr | Hole) else value

    @property
    def params(self) -> dict[str, Any]:
        """The block's own parameters."""
        return self.model_extra or {}


class StemSpec(OpSpec):
    """The block from the image to the first stage."""

    kinds = ("stem",)

    dim: Annotated[Dim | None, Open] = None
    """Channels, where stage 0 has a `downsample` of its own behind the stem; absent: those of stage 0."""


class DownsampleSpec(OpSpec):
    """A block that makes a map smaller."""

    kinds = ("downsample",)


class AggregatorSpec(OpSpec):
    """A block that joins maps."""

    kinds = ("aggregator",)


class NormSpec(OpSpec):
    """A normalisation."""

    kinds = ("norm",)


class HeadSpec(OpSpec):
    """The block from the last map to class scores."""

    kinds = ("head",)


OptionalDownsample = Annotated[DownsampleSpec | None, OrNone, Open]
OptionalNorm = Annotated[NormSpec | None, OrNone, Open]


class NormedOpSpec(OpSpec):
    """A block behind a norm."""

    norm: OptionalNorm = None
    """Normalisation before the op, or none; absent: the one in `defaults`."""

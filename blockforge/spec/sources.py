"""What reads maps by name: `from` and `join`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from blockforge.spec.fields import MAX_STAGES, OneOrMore, Open, OrNone, StageName
from blockforge.spec.slots import Model, OpSpec

INPUT, STEM = "input", "stem"
"""The maps that are no stage's."""


class EdgeOpSpec(OpSpec):
    """An op between what gives a map and what reads it; it is asked for the width of what reads."""

    kinds = ("mixer", "ffn", "downsample", "stem")


class JoinSpec(OpSpec):
    """What makes one map of several; with a `dim` of its own it is asked for that width."""

    kinds = ("join", "aggregator")


class SourceSpec(Model):
    """A map that is read: `input`, `stem`, a stage by name or number; or one through an op: `{from: 3, op: up}`."""

    from_: Annotated[StageName, Open] = Field(alias="from")
    """`input`, `stem`, or a stage that stands earlier, by name or number."""
    op: Annotated[EdgeOpSpec | None, OrNone, Open] = None
    """What the map goes through on its way."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise PydanticCustomError("stage_type", "the name or number of a stage")
        return {"from": value}


Sources = Annotated[list[Annotated[SourceSpec, Open]], Field(min_length=1, max_length=MAX_STAGES), OneOrMore, Open]
"""One map, or several."""


class ReadsSpec(Model):
    """What is read, and how it becomes one map."""

    from_: Sources = Field(alias="from")
    """What it reads: one source or a list; absent: the stage before."""
    join: Annotated[JoinSpec, Open] = JoinSpec(op="sum")
    """How several maps become one."""

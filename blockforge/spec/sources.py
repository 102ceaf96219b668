"""What reads maps by name: `from` and `join`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from blockforge.spec.fields import MAX_STAGES, OneOrMore, Open, OrNone, StageName
from blockforge.spec.forms import Form, refuse
from blockforge.spec.slots import Model, OpSpec

INPUT, STEM = "input", "stem"
"""The maps that are no stage's."""

_WITHIN = "what the op is told stands inside it, as in op: {op: logits, bias: false}"


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


class HeadSpec(OpSpec):
    """What gives an output: an op on the last map; or with `from` on what it reads, beside which stand `join` and `op`
    alone: {from: [a, b], join: concat, op: [conv_bn, logits]}."""

    kinds = ("head",)

    op: Form = []
    """Name of a block or of a definition; or a list of ops, one behind the other."""
    from_: Sources | None = Field(default=None, alias="from")
    """What it reads: stages by name or number, one or a list; absent: the last stage."""
    join: Annotated[JoinSpec | None, Open] = None
    """How several maps become one; absent: their sum."""

    @model_validator(mode="before")
    @classmethod
    def _reads_or_is(cls, value: Any) -> Any:
        if isinstance(value, dict) and "op" not in value and "from" not in value:
            refuse(iter([InitErrorDetails(type="missing", loc=("op",), input=value)]))
        if isinstance(value, dict) and "join" in value and "from" not in value:
            if isinstance(value["op"], str):
                return {"op": value}  # the op's own: {op: parallel, join: mul, of: [...]}
            wrong = PydanticCustomError("join", "join is for what from names, and there is no from")
            refuse(iter([InitErrorDetails(type=wrong, loc=("join",), input=value)]))
        if isinstance(value, dict) and "from" in value:
            others = value.keys() - {"from", "join", "op"}
            wrong = PydanticCustomError("extra_forbidden", "no key", {"keys": ("from", "join", "op"), "more": _WITHIN})
            refuse(InitErrorDetails(type=wrong, loc=(key,), input=value[key]) for key in others)
        return value


class ReadsSpec(Model):
    """What is read, and how it becomes one map."""

    from_: Sources = Field(alias="from")
    """What it reads: one source or a list; absent: the stage before."""
    join: Annotated[JoinSpec, Open] = JoinSpec(op="sum")
    """How several maps become one."""

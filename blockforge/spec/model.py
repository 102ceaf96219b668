"""The schema of a spec: frozen pydantic models. Positions live beside them, in a `Locs` table.

Any value may also be a reference or a hole (`values`); `Value[T]` accepts those and validates what a hole
could become. Which ops exist and what their parameters mean is the registry's to say, not this schema's.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from blockforge.errors import Locs
from blockforge.spec.values import Hole, Ref, plain

MAX_DIM, MAX_DEPTH, MAX_STAGES, MAX_SIZE, MAX_CLASSES = 65_536, 1000, 16, 16_384, 1_000_000


def _open_value(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """Let references and holes through; validate each value that a hole could take."""
    if isinstance(value, Ref):
        return value
    if isinstance(value, Hole):
        key = f"${value.kind}"
        numbers = (value.low, value.high)
        tried = enumerate(value.options) if value.kind == "choice" else enumerate(numbers)
        for i, option in tried:
            if not isinstance(option, Ref | Hole):
                _validate_option(option, handler, (key, i))
            elif isinstance(option, Hole):
                _open_value(option, handler)
        return value
    return handler(value)


def _validate_option(option: Any, handler: ValidatorFunctionWrapHandler, at: tuple[str | int, ...]) -> None:
    try:
        handler(option)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        text = f"{where}: {first['msg']}" if where else first["msg"]
        raise PydanticCustomError(
            "option", "{text}", {"text": f"choice {at[1]}: {text}", "at": (*at, *first["loc"])}
        ) from None


def _none(value: Any) -> Any:
    """`none` -> None; YAML's empty value is refused, because it is most often a slip."""
    if value is None:
        raise PydanticCustomError("empty", "there is no value here; write none to leave it out")
    return None if value == "none" else value


Open = WrapValidator(_open_value)
OrNone = BeforeValidator(_none)

Both = BeforeValidator(lambda v: v if isinstance(v, list) else [v, v])
"""One number for both sides."""

Dim = Annotated[int, Field(ge=1, le=MAX_DIM)]
Side = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", max_length=100)]


class Model(BaseModel):
    """Base of the schema's parts: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


class OpSpec(Model):
    """A building block and its parameters: `{op: sam, num_heads: 4}`, or just `sam`."""

    model_config = ConfigDict(extra="allow")

    op: Annotated[Name, Open]
    """Name of a registered block."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"op": value} if isinstance(value, str | Ref | Hole) else value

    @property
    def params(self) -> dict[str, Any]:
        """The block's own parameters."""
        return self.model_extra or {}


OptionalOp = Annotated[OpSpec | None, OrNone, Open]


class ScaleSpec(Model):
    """A learnt scale a channel: on the branch (LayerScale), or scale and bias on the identity path."""

    branch: float | None = None
    """Initial value of the scale on the branch; absent: no such scale."""
    skip: float | None = None
    """Initial value of the scale on the identity path (its bias starts at 0); absent: plain identity."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"branch": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Scale = Annotated[ScaleSpec | None, OrNone, Open]


class BranchSpec(OpSpec):
    """One residual branch: `x + drop_path(scale * op(norm(x)))`."""

    norm: OptionalOp = None
    """Normalisation before the op, or none; absent: the one in `defaults`."""
    scale: Scale = None
    """`none`, a float (LayerScale on the branch) or `{skip: 1.0}` (scale and bias on the identity path)."""
    drop_path: Annotated[bool, Open] = True
    """false: this branch is never dropped."""


class DefaultsSpec(Model):
    """What every branch takes that does not say."""

    norm: OptionalOp = None
    scale: Scale = None


class ConnectSpec(Model):
    """Connections between the layers of a stage; the other keys are the rule's own."""

    model_config = ConfigDict(extra="allow")

    rule: Annotated[Name, Open]
    """`sparx`, `dense` or `edges`."""
    aggregate: Annotated[OpSpec, Open]
    """The aggregator that joins the sources."""


class StageSpec(Model):
    """A run of layers on maps of one size."""

    dim: Annotated[Dim, Open]
    """Channels."""
    depth: Annotated[Annotated[int, Field(ge=1, le=MAX_DEPTH)], Open]
    """Number of layers."""
    layers: Annotated[str, Open]
    """Which block stands in which layer: `sam`, `sam*2 msa*6`, `(sam msa)*`, `mamba* msa*`."""
    let: dict[Name, Any] = {}
    """Names for this stage; they win over the spec's."""
    connect: Annotated[ConnectSpec | None, OrNone, Open] = None
    """Connections between the layers."""
    window: Annotated[Side | None, OrNone, Open] = None
    """Run the layers on window x window tiles (zero-padded on entry, cropped on exit)."""
    downsample: OptionalOp = None
    """In place of the spec's `downsample` before this stage; none: the map stays as it is."""


class SkipSpec(Model):
    """A long edge: the input of stage `from`, through `op` once a stage, added to the inputs of the stages `to`."""

    from_: Annotated[int, Open] = Field(alias="from")
    """Stage whose input leaves, before anything is added to it. Stages count from 0."""
    to: Annotated[list[int], Open]
    """Stages whose inputs it is added to."""
    op: Annotated[OpSpec, Open]
    """A downsample block, applied once for every stage on the way."""


class InputSpec(Model):
    """The image that shapes and costs are stated for."""

    channels: Annotated[Annotated[int, Field(ge=1, le=4096)], Open] = 3
    """Channels of the image."""
    size: Annotated[list[Annotated[Side, Open]], Field(min_length=2, max_length=2), Both, Open] = [224, 224]
    """One side, or [height, width]."""


class DropPathSpec(Model):
    """Stochastic depth: a rate that rises linearly from 0 over all layers, or a constant one."""

    linear: Annotated[Rate, Open] = 0.0
    """Rate of the last layer; a bare number says the same."""
    constant: Annotated[Rate | None, Open] = None
    """The rate of every layer, in place of `linear`."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"linear": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


class Spec(Model):
    """A vision backbone as a page of YAML: what `bf.load` gives."""

    blockforge: Literal[1]
    """Version of this language."""
    name: Name
    """Name of the architecture."""
    about: dict[str, Any] = {}
    """Paper, reported figures, differences: free form, never read by the compiler."""
    input: InputSpec = InputSpec()
    """The image that shapes and costs are stated for."""
    num_classes: Annotated[Annotated[int, Field(ge=0, le=MAX_CLASSES)], Open] = 1000
    """Classes of the head; 0: features only."""
    drop_path: Annotated[DropPathSpec, Open] = DropPathSpec()
    """Stochastic depth: rises linearly to this rate over all layers; {constant: 0.1} does not."""
    let: dict[Name, Any] = {}
    """Names for $name anywhere below."""
    defaults: DefaultsSpec = DefaultsSpec()
    """What every branch takes that does not say."""
    blocks: dict[Name, Annotated[list[Annotated[BranchSpec, Open]], Open]] = {}
    """A block is a list of residual branches, applied in order."""
    stem: Annotated[OpSpec, Open]
    """From the image to the first stage."""
    downsample: OptionalOp = None
    """Between stages; a stage may override it."""
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=MAX_STAGES)]
    """The stages, counted from 0."""
    skips: list[SkipSpec] = []
    """Long edges between stage inputs."""
    stage_norm: OptionalOp = None
    """A norm at the end of every stage."""
    head: Annotated[OpSpec, Open]
    """From the last map to class scores."""

    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)
    _locs: Locs = PrivateAttr(default_factory=Locs)

    @property
    def tree(self) -> dict[str, Any]:
        """The spec as plain data, without what was not written: `extends` merged, references and holes kept."""
        return self._tree or plain(self.model_dump(exclude_unset=True, by_alias=True))

    @property
    def locs(self) -> Locs:
        """Where each value was written, for errors."""
        return self._locs

"""The schema of a spec: frozen pydantic models. Positions live beside them, in a `Locs` table.

Which ops exist and what their parameters mean is the registry's to say, not this schema's.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from blockforge.errors import Locs, Report
from blockforge.spec.definitions import Definitions, Inlined, UseSpec
from blockforge.spec.fields import (
    MAX_CLASSES,
    MAX_STAGES,
    Both,
    Depth,
    Dim,
    InitialScale,
    LetName,
    Name,
    Open,
    OrNone,
    Rate,
    Side,
    StageName,
    Version,
    number_or,
)
from blockforge.spec.forms import BoolOrForm, Layers
from blockforge.spec.references import lift
from blockforge.spec.slots import (
    AggregatorSpec,
    DownsampleSpec,
    Model,
    NormedOpSpec,
    OptionalAct,
    OptionalDownsample,
    OptionalNorm,
    OptionalStem,
)
from blockforge.spec.sources import HeadSpec, JoinSpec, Sources
from blockforge.spec.values import plain

MAX_SKIPS = 120
"""One for each pair of 16 stages."""
MAX_RELATIONS = 100
MAX_HEADS = 16
_ABSENT: Any = None


class ScaleSpec(Model):
    """A learnt scale a channel: on the branch (LayerScale), or scale and bias on the identity path."""

    branch: InitialScale | None = None
    """Initial value of the scale on the branch; absent: no such scale."""
    skip: InitialScale | None = None
    """Initial value of the scale on the identity path (its bias starts at 0); absent: plain identity."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return number_or(cls, "branch", value)


Scale = Annotated[ScaleSpec | None, OrNone, Open]


class BranchKeys(Model):
    """What a branch says beside its op and its norm."""

    scale: Scale = None
    """`none`, a float (LayerScale on the branch) or `{skip: 1.0}` (scale and bias on the identity path)."""
    drop_path: Annotated[bool, Open] = True
    """false: this branch is never dropped."""
    post_act: OptionalAct = None
    """Activation after the sum, as in ResNet's first design; none: the sum is the result."""
    skip: Annotated[bool | Name | list[Any] | dict[str, Any], BoolOrForm, Open] = True
    """false: no identity path and nothing that drops: the result is what the op gives, scaled; an op: on that path."""

    @model_validator(mode="after")
    def _scales_what_there_is(self) -> Self:
        if self.skip is False and isinstance(self.scale, ScaleSpec) and self.scale.skip is not None:
            raise PydanticCustomError("skip", "scale speaks of the identity path, which skip: false leaves out")
        return self

    def with_default(self, scale: ScaleSpec | None) -> BranchKeys:
        """With the scale that `defaults` gives, of what there is."""
        if scale is not None and self.skip is False:
            scale = ScaleSpec(branch=scale.branch)
        return self.model_copy(update={"scale": scale})


class BranchSpec(BranchKeys, NormedOpSpec):
    """One residual branch: `post_act(x + drop_path(scale * op(norm(x))))`, without `x +` where it has no `skip`."""

    kinds = ("mixer", "ffn")
    read_late = frozenset({"skip"})

    @property
    def keys(self) -> BranchKeys:
        return BranchKeys.model_construct(**{name: getattr(self, name) for name in BranchKeys.model_fields})


class DefaultsSpec(Model):
    """What every branch takes that does not say."""

    norm: OptionalNorm = None
    """Normalisation before the op, or none."""
    scale: Scale = None
    """`none`, a float (LayerScale on the branch) or `{skip: 1.0}` (scale and bias on the identity path)."""


class ConnectSpec(Model):
    """Connections between the layers of a stage; the other keys are the rule's own."""

    model_config = ConfigDict(extra="allow")

    rule: Annotated[Name, Open]
    """`sparx`, `dense` or `edges`."""
    aggregate: Annotated[AggregatorSpec, Open]
    """The aggregator that joins the sources: `{op: concat}`."""


class StageSpec(Model):
    """A run of layers on maps of one size."""

    name: Name | None = None
    """What later stages, `features` and heads call it; its number does as well."""
    dim: Annotated[Dim | None, OrNone, Open] = None
    """Channels."""
    from_: Annotated[Sources | None, Open] = Field(None, alias="from")
    """What it reads: input, stem, an earlier stage, {from: 3, op: up}, or a list of these; absent: the stage before."""
    join: Annotated[JoinSpec, Open] = JoinSpec(op="sum")
    """How several sources become one map."""
    depth: Annotated[Depth | None, OrNone, Open] = None
    """Number of layers."""
    layers: Annotated[Layers, Open] = None
    """Which block stands in which layer: `sam`, `sam*2 msa*6`, `(sam msa)*`, `mamba* msa*`."""
    let: dict[LetName, Any] = {}
    """Names for this stage; they win over the spec's."""
    connect: Annotated[ConnectSpec | None, OrNone, Open] = None
    """Connections between the layers."""
    window: Annotated[Side | None, OrNone, Open] = None
    """Run the layers on window x window tiles (zero-padded on entry, cropped on exit)."""
    downsample: OptionalDownsample = None
    """In place of the spec's `downsample`, which a stage with `from` has not; none: the map stays as it is."""
    stage_norm: OptionalNorm = None
    """In place of the spec's `stage_norm`, which a stage with `from` has not; none: there is none."""


class SkipSpec(Model):
    """A long edge: the input of stage `from`, through `op` once a stage, added to inputs of stages `to`."""

    from_: Annotated[int, Open] = Field(alias="from")
    """Stage whose input leaves, before anything is added to it. Stages count from 0."""
    to: Annotated[list[Annotated[int, Open]], Field(min_length=1, max_length=MAX_STAGES), Open]
    """Stages whose inputs it is added to."""
    op: Annotated[DownsampleSpec, Open]
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
        if isinstance(value, dict) and {"linear", "constant"} <= value.keys():
            raise PydanticCustomError("both", "linear and constant are both given; keep one of them")
        return number_or(cls, "linear", value)


class Basics(Model):
    """What a spec says beside its blocks and stages."""

    input: Annotated[InputSpec, Open] = InputSpec()
    """The image that shapes and costs are stated for."""
    num_classes: Annotated[Annotated[int, Field(ge=0, le=MAX_CLASSES)], Open] = 1000
    """Classes of the head; 0: features only."""
    drop_path: Annotated[DropPathSpec, Open] = DropPathSpec()
    """Stochastic depth: rises linearly to this rate over all layers; {constant: 0.1} does not."""
    features: Annotated[Annotated[list[Annotated[StageName, Open]], Field(min_length=1)] | None, OrNone, Open] = None
    """The stages whose maps `features_only` gives where nobody says which: [0, 1, 2, up1]; absent: all."""


class Spec(Basics):
    """A vision backbone as a page of YAML: what `bf.load` gives."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["head"]}, {"required": ["heads"]}]})

    blockforge: Version
    """Version of this language: 1."""
    name: Name
    """Name of the architecture: letters, digits, _ and -."""
    about: dict[str | int, Any] = {}
    """Paper, reported figures, differences: free form, never read by the compiler."""
    let: dict[LetName, Any] = {}
    """Names for $name anywhere below."""
    define: Definitions = {}
    """Ops with names: {ln: {op: layer_norm, eps: 1e-6}}; with parameters: {f: {params: {k: 3}, body: [...]}}."""
    use: Annotated[list[UseSpec], Inlined] = []
    """Files of definitions: [lib.yaml, std], or {m: lib.yaml}, by which its names begin with m."""
    require: Annotated[list[str], Field(max_length=MAX_RELATIONS)] = []
    """Relations that values must keep: [stages.1.dim >= stages.0.dim, M == 'all' or S <= M]."""
    defaults: Annotated[DefaultsSpec, Open] = DefaultsSpec()
    """What every branch takes that does not say."""
    blocks: dict[Name, Annotated[list[Annotated[BranchSpec, Open]], Field(min_length=1), Open]] = {}
    """A block is a list of residual branches, applied in order: [{op: sam}, {op: mlp}]."""
    stem: OptionalStem
    """From the image to the first stage; none: stages read it with `from: input`."""
    downsample: OptionalDownsample = None
    """Between stages; a stage may override it, and one with `from` says it itself."""
    stages: Annotated[list[Annotated[StageSpec, Open]], Field(min_length=1, max_length=MAX_STAGES)]
    """The stages, counted from 0: [{dim: 64, depth: 2, layers: sam}, ...]."""
    skips: Annotated[list[Annotated[SkipSpec, Open]], Field(max_length=MAX_SKIPS), Open] = []
    """Long edges between stage inputs: [{from: 1, to: [2, 3], op: {op: dwconv_downsample}}]."""
    stage_norm: OptionalNorm = None
    """A norm at the end of every stage; one with `from` says it itself."""
    head: Annotated[HeadSpec, Open] = _ABSENT
    """From the last map, or what `from` says, to class scores or to a map of them."""
    heads: Annotated[dict[LetName, Annotated[HeadSpec | None, OrNone, Open]], Field(max_length=MAX_HEADS)] = {}
    """In place of `head` several, by name: {seg: [conv_bn, logits], aux: classifier}. The first is the main one."""

    _tree: dict[str, Any] | None = PrivateAttr(default=None)
    _locs: Locs = PrivateAttr(default_factory=Locs)

    @property
    def tree(self) -> dict[str, Any]:
        """The spec as plain data, only what was written: `extends` merged, references and holes kept."""
        if self._tree is None:
            written: dict[str, Any] = plain(self.model_dump(exclude_unset=True, by_alias=True))
            return written
        return self._tree

    @functools.cached_property
    def lifted(self) -> dict[str, Any]:
        """`tree` with references and holes as objects. Shared: not to be changed."""
        lifted: dict[str, Any] = lift(self.tree, Report(self.locs))
        return lifted

    @property
    def locs(self) -> Locs:
        """Where each value was written, for errors."""
        return self._locs

    def to_yaml(self, header: bool = True) -> str:
        """YAML text that loads to this spec. `header`: with the line by which editors find the schema."""
        from blockforge.spec.emit import to_yaml

        return to_yaml(self, header)

    def with_source(self, tree: dict[str, Any], locs: Locs) -> Spec:
        """This spec, with the plain tree that it was read from and the places in it."""
        self._tree, self._locs = tree, locs
        return self

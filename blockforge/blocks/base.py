"""What a building block is: validated parameters, a shape rule, a cost rule and an nn.Module, in one class.

A block is a frozen pydantic model, so equal blocks are equal values, hash alike, and cost is computed once
for each (block, place). The compiler calls every block of a kind in the same way and knows none by name. `Op` is
generic in its place, the arguments of check, resolved, out_shape, cost, workspace and build, which each kind gives:

| kind               | place                                                                       |
|--------------------|-----------------------------------------------------------------------------|
| mixer, ffn, norm,  | `shape`: the map it works on                                                |
| act                |                                                                             |
| stem, downsample   | `shape`, `dim`: the map it reads and the width it must give                 |
| aggregator         | `shape`, `sources`, `dim`: the map, the sources' widths, the width to give  |
| head               | `shape`, `num_classes`                                                      |
| part               | `shape`, `dim`: the map it reads, the width it is asked for or None         |
| join               | `shapes`, `dim`: the maps it reads, the width it is asked for or None       |

Every module works on channels-last maps, x_BHWC; a head gives y_BK (K classes). One that is a leaf of torch's (a batch
norm, a convolution) takes what its class takes, and `layout` says so.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVarTuple, get_args

from pydantic import ConfigDict, model_validator
from torch import nn

from blockforge.blocks import tokens
from blockforge.blocks.divisors import divisible as divisible
from blockforge.blocks.measured import measured_workspace
from blockforge.blocks.shapes import Shape as Shape
from blockforge.blocks.strides import stride_of
from blockforge.blocks.tokens import TokenRule as TokenRule
from blockforge.described import Described
from blockforge.errors import OpError
from blockforge.spec.slots import Kind as Kind

if TYPE_CHECKING:
    from torch import Tensor

    from blockforge.blocks.compose.program import Program
    from blockforge.blocks.filters import Filter
    from blockforge.blocks.part import Join, Part

Layout = Literal["NHWC", "NCHW"]


class Scratch(Protocol):
    """What an operation holds for itself while it runs, such as a copy of its weights. Hashable.

    Attributes:
        alive: elements of one image that are alive in the block meanwhile, the operation's result included; None: as
            many as there are at most (`Op.workspace`).
    """

    @property
    def alive(self) -> int | None: ...

    def held(self, images: int) -> int:
        """Bytes for so many images at once, in float32 on a CPU."""


class Cost(NamedTuple):
    """Exact cost of one block for one image. Adds up with `+`.

    Attributes:
        params: learnt parameters (buffers aside).
        macs: multiply-adds, scans included.
        scan: the part of `macs` that no operator counter sees (closed form of a scan).
        scratch: of its operations, which run one after the other: at once there is the largest.
    """

    params: int = 0
    macs: int = 0
    scan: int = 0
    scratch: frozenset[Scratch] = frozenset()

    def __add__(self, other: object) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        scratch = self.scratch | other.scratch
        return Cost(self.params + other.params, self.macs + other.macs, self.scan + other.scan, scratch)


Place = TypeVarTuple("Place")
"""The arguments of a block's methods: where it stands. See the module's table."""


class Op(Described, Generic[*Place]):
    """Base of all building blocks. Subclass one of the kinds below and register it with its decorator.

    Parameters are annotated fields with defaults; unknown ones are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        """`none` leaves a parameter out, wherever it may be absent."""
        if not isinstance(data, dict) or "none" not in [v for v in data.values() if isinstance(v, str)]:
            return data
        fields = cls.model_fields
        optional = {n for n, f in fields.items() if type(None) in get_args(f.annotation)}
        return {k: None if v == "none" and k in optional else v for k, v in data.items()}

    op: ClassVar[str] = ""
    """The registered name, set by the decorator."""
    passes: ClassVar[bool] = False
    """Whether it gives what it reads, at every place."""
    token_rule: ClassVar[TokenRule] = "none"
    """What it does with extra tokens beside the map that it reads, see `blocks.tokens`."""
    silent: ClassVar[frozenset[str]] = frozenset()
    """Parameters that came later than the block: where they are absent they leave no trace, and hashes stay."""
    inline: ClassVar[str | None] = None
    """Python for what its module would do inside a block, where it has none, see `blocks.part.Join`."""
    overwrites: ClassVar[bool] = False
    """Whether in inference its result takes the memory of a map that nobody else reads."""
    elementwise: ClassVar[bool] = False
    """Whether each value of its result is made of those at the same position and channel alone, wherever in memory
    these lie."""
    classifies: ClassVar[bool] = False
    """Whether it gives the classes of a head, see `blocks.part.Part`."""
    kind: ClassVar[Kind]

    def __class_getitem__(cls, place: Any) -> type:
        """`Op[Shape]` is for type checkers; to pydantic, which knows no such generics, it is the class itself."""
        return cls

    @property
    def title(self) -> str:
        """What it is called in pictures and tables."""
        return self.op

    def tokens_are(self) -> TokenRule:
        """Its `token_rule`, unless its parameters make it another."""
        return self.token_rule

    def check(self, *place: *Place) -> None:
        """Raise `OpError` where the block cannot stand. The default accepts every place."""

    def resolved(self, *place: *Place) -> Op[*Place]:
        """The same block with what it leaves to the place said in one way (`num_heads` for `head_dim`): blocks that
        build the same network there are then equal, and hash alike. The default: itself."""
        return self

    @property
    def layout(self) -> Layout:
        """What the module takes and gives: NCHW where it is a leaf of a class that does, see `blocks.leaves`."""
        return "NHWC"

    @abstractmethod
    def out_shape(self, *place: *Place) -> Shape:
        """The shape that the block gives."""

    @abstractmethod
    def cost(self, *place: *Place) -> Cost:
        """Exact parameters and multiply-adds of the block for one image, from `primitives`."""

    def workspace(self, *place: *Place) -> int:
        """Most elements alive at once inside the block's forward pass in inference, its output included,
        its inputs (which live until it returns) not. The default measures the module, once a place, on the meta device,
        in milliseconds; who says it is asked in microseconds. Raises: OpError if it cannot be measured."""
        return measured_workspace(self, place)

    def once(self, *place: *Place) -> int:
        """Multiply-adds that a call makes once for all tiles of an image, see `joins.attend`."""
        return 0

    def num_parts(self, *place: *Place) -> int:
        """How many parts the block is made of."""
        return 1

    @abstractmethod
    def build(self, *place: *Place) -> nn.Module:
        """The module, initialised as its paper says."""

    def as_program(self, *place: *Place) -> Program | None:
        """The block as parts, for what works on parts of any block: the modules of the steps are in the block's own,
        under their names. The default, None: it is of one piece."""
        return None

    def as_filter(self, *place: *Place) -> Filter | None:
        """What it computes in inference, if that is a convolution. The default, None: it is another function."""
        return None

    def with_filter(self, filter: Filter) -> AnyOp | None:
        """A part like this one that computes another convolution, for one that `as_filter` speaks of; its module has
        `weight` and `bias` as torch's. The default, None: there is none of its sort."""
        return None

    def filter_values(self, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel and the term of what `as_filter` says, from the block's module: weight_OIHW and bias_O; I are the
        channels that a group reads. The default reads `weight` and `bias`."""
        learnt: Any = module
        weight: Tensor = learnt.weight
        return weight[(...,) + (None,) * (4 - weight.ndim)], learnt.bias

    def parameters_dict(self) -> dict[str, Any]:
        """All parameters with their defaults, nested blocks as `{op: ..., ...}`; reloads through the registry."""
        said = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {name: value for name, value in said.items() if value is not None or name not in self.silent}

    def as_parameter(self) -> Any:
        """How it is written where it is a parameter of another block: `{op: ..., ...}`."""
        return {"op": self.op, **self.parameters_dict()}


AnyOp = Op[*tuple[Any, ...]]
"""A block of whatever kind."""


@dataclass(frozen=True, slots=True)
class Placed(Generic[*Place]):
    """A block and where it stands: the two belong together, and a type checker sees to it."""

    op: Op[*Place]
    place: tuple[*Place]

    @property
    def told(self) -> tuple[*Place]:
        """The place as the block's methods take it: where extra tokens stand beside a map, perhaps the row that they
        make with it. Raises: OpError if the block cannot stand there."""
        told: tuple[*Place] = tokens.told(self.op, self.place)
        return told

    def out_shape(self) -> Shape:
        """What the block gives, with the tokens that are still beside it."""
        return tokens.given(self.op, self.place, self.op.out_shape(*self.told))

    def build(self) -> nn.Module:
        return self.op.build(*self.told)

    def resolved(self) -> Op[*Place]:
        return self.op.resolved(*self.told)


AnyPlaced = Placed[*tuple[Any, ...]]
"""A block of whatever kind at its place."""


class MapOp(Op[Shape]):
    """A block that keeps the shape of its map: the base of mixers, FFNs, norms and activations."""

    residual: ClassVar[bool] = False
    """Whether its module has a method `residual(x)`: `x + forward(x)` in one pass without a map for the second term, in
    the layout of `forward`. A branch in which nothing stands between the two uses it."""

    def out_shape(self, shape: Shape) -> Shape:
        return shape


class Mixer(MapOp):
    """Mixes positions. Module: `forward(x_BHWC) -> y_BHWC`."""

    kind = "mixer"

    def as_part(self) -> Part | None:
        """What is a part of a block under this name, where that can do more than a mixer, which keeps its map. The
        default, None: this mixer."""
        return None

    def fed(self, dim: int) -> tuple[Mixer, int]:
        """How an aggregator feeds this mixer on a map of width `dim`: the mixer that then runs, and the
        width that the aggregator must give. The default: the same mixer, fed at `dim`. A mixer whose input
        projection the aggregator replaces returns itself without it, and the width it works at."""
        return self, dim


class FFN(MapOp):
    """Mixes channels at each position. Module: `forward(x_BHWC) -> y_BHWC`."""

    kind = "ffn"


class Norm(MapOp):
    """A normalisation over channels. Module: `forward(x_BHWC) -> y_BHWC`."""

    kind = "norm"
    bias_before: ClassVar[bool] = False
    """Whether a convolution before this norm has a bias unless its spec says otherwise."""


class Act(MapOp):
    """An activation: a function of each value, with parameters of its own perhaps, on maps of any shape. Module:
    `forward(x) -> y` of any number of axes, the last one channels."""

    kind = "act"
    token_rule = "each"
    overwrites: ClassVar[bool] = False
    """Whether `kernels.cpu.activate` computes its module in the input's memory where that may be: one of the classes of
    torch that are known there, or with a method `overwrite(x)` of equal results."""

    @property
    def elementwise(self) -> bool:  # type: ignore[override]
        return self.overwrites

    def cost(self, shape: Shape) -> Cost:
        return Cost()  # elementwise work counts no multiply-adds

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def beside(self, shape: Shape) -> int:
        """Elements that live beside an input that it may overwrite, while it runs."""
        return 0 if self.overwrites else self.workspace(shape)

    def as_parameter(self) -> Any:
        """By its name alone, if all its parameters are at their defaults."""
        is_plain = all(getattr(self, name) == f.get_default() for name, f in type(self).model_fields.items())
        return self.op if is_plain else super().as_parameter()


class Reducing(Op[Shape, int]):
    """A block that may shrink its map: the base of stems and downsamples."""

    def total_stride(self, shape: Shape, dim: int) -> int:
        """How many positions of what it reads, along a side, stand for one of what it gives; found from `out_shape`."""
        return stride_of(self, shape, dim)


class Stem(Reducing):
    """From the image to the first stage. Module: `forward(x_BHWC) -> y_BHWC`, x with `in_chans` channels."""

    kind = "stem"


class Downsample(Reducing):
    """Between two stages, and on skips. Module: `forward(x_BHWC) -> y_BHWC`."""

    kind = "downsample"


class Aggregator(Op[Shape, tuple[int, ...], int]):
    """Joins the outputs of earlier layers before a mixer.

    Module: `forward(x_BHWC, sources) -> y_BHWD`, where x is the layer's normalised input and `sources` a
    list of maps of the same height and width, oldest first; D is the width the mixer asks for (`Mixer.fed`).
    """

    kind = "aggregator"

    def as_join(self) -> Join | None:
        """What joins the members of a block under this name. The default, None: this aggregator, with the first map as
        the layer's input and the others as its sources."""
        return None

    def out_shape(self, shape: Shape, sources: tuple[int, ...], dim: int) -> Shape:
        return Shape(shape.height, shape.width, dim)


class Head(Op[Shape, int]):
    """From the last map to class scores.

    Module: `forward(x_BHWC, pre_logits=False) -> y_BK`; with `pre_logits` the pooled features before the
    classifier. It has `reset(num_classes)`, which replaces the classifier (0: none).
    """

    kind = "head"

    def out_shape(self, shape: Shape, num_classes: int) -> Shape:
        return Shape(1, 1, num_classes or shape.dim)


def hidden_width(dim: int, ratio: float, param: str = "mlp_ratio") -> int:
    """`dim * ratio`, rounded down. Raises: OpError if that leaves nothing."""
    if (hidden := int(dim * ratio)) < 1:
        raise OpError(f"{param} {ratio:g} leaves nothing of dim {dim}", hint=f"at least {1 / dim:g}", param=param)
    return hidden


def _plain(value: Any) -> Any:
    if isinstance(value, Op) or hasattr(value, "as_parameter"):
        return value.as_parameter()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value

"""What stands where in a network and what it reads, before shapes are known: what `assemble` makes of a plan.

A site becomes a node of the graph; its class says what sort of node that is, and what the passes must know of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from blockforge.blocks.base import Aggregator, AnyOp, AnyPlaced, Head, Norm, Placed, Shape
from blockforge.blocks.compose.steps import at_place
from blockforge.blocks.part import Join
from blockforge.compiler.graph.branch_keys import Residual
from blockforge.errors import Path
from blockforge.spec.plan import PlannedOp

Role = Literal["main", "intra", "inter", "skip"]
"""Of an edge: the main path, from an earlier layer, from the stage's input, a long skip."""


@dataclass(frozen=True, kw_only=True)
class Site(ABC):
    """A place in the network.

    Attributes:
        name: the path of its module in the built model.
        inputs: the sites it reads, in order; the first is the main one.
        roles: of the inputs behind the first.
        path: where it is written.
        stage, layer: the numbers of those that it belongs to.
        output: the name of what the head gives that it belongs to.
    """

    name: str
    inputs: tuple[str, ...]
    path: Path
    roles: tuple[Role, ...] = ()
    stage: int | None = None
    layer: int | None = None
    output: str | None = None

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it is called in pictures and tables."""

    @property
    def unit(self) -> str:
        """What runs it: itself, or the layer that it is a part of."""
        return self.name

    @property
    def has_module(self) -> bool:
        """Whether the built model has a module for it, of its name."""
        return True


class ImageSite(Site):
    """Where the image comes in."""

    kind = "input"
    has_module = False


class SumSite(Site):
    """Where a long skip arrives: the main path and the skip are added."""

    kind = "add"
    has_module = False


@dataclass(frozen=True, kw_only=True)
class WindowSite(Site):
    """Where a map becomes tiles of `window` x `window`, or tiles a map."""

    window: int


class WindowInSite(WindowSite):
    """The stage's map is cut into tiles, padded with zeros."""

    kind = "window_in"


@dataclass(frozen=True, kw_only=True)
class WindowOutSite(WindowSite):
    """The tiles are put together and, if they kept their size, cropped to the map of the site `like`."""

    like: str
    kind = "window_out"


@dataclass(frozen=True, kw_only=True)
class BlockSite(Site):
    """A site that runs a block.

    Attributes:
        block: the block.
        planned: as the plan names it; where an aggregator feeds a mixer, the block may be another.
    """

    block: AnyOp
    planned: PlannedOp

    @abstractmethod
    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        """The block at its place: on a map of `shape`, with the other inputs `beside` it."""

    @property
    def kind(self) -> str:
        return self.block.kind


@dataclass(frozen=True, kw_only=True)
class NormSite(BlockSite):
    """A norm at the end of a stage."""

    block: Norm

    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        return Placed(self.block, (shape,))


@dataclass(frozen=True, kw_only=True)
class AskedSite(BlockSite):
    """A block that is asked for `dim` channels. None: nobody asks."""

    dim: int | None

    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        return at_place(self.block, (shape, *beside), self.dim)


class ReducingSite(AskedSite):
    """The stem, or a downsample on the main path."""


class EdgeSite(AskedSite):
    """What a map goes through on its way to a stage that reads it."""


@dataclass(frozen=True, kw_only=True)
class JoinSite(AskedSite):
    """Where the maps that a stage reads become one."""

    block: Join


@dataclass(frozen=True, kw_only=True)
class SkipSite(ReducingSite):
    """A long skip on its way past a stage, whose input is the map of the site `like`."""

    like: str
    kind = "skip"


@dataclass(frozen=True, kw_only=True)
class HeadSite(BlockSite):
    """The head, or one of several."""

    block: Head
    output: str
    num_classes: int

    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        return Placed(self.block, (shape, self.num_classes))


@dataclass(frozen=True, kw_only=True)
class NormedSite(BlockSite):
    """A block behind a norm: one of those that make the layer of the name `within`."""

    within: str
    norm: Norm | None
    norm_planned: PlannedOp | None

    @property
    def unit(self) -> str:
        return self.within


@dataclass(frozen=True, kw_only=True)
class AggregateSite(NormedSite):
    """What joins a layer's sources; the mixer that it feeds asks for `dim` channels."""

    block: Aggregator
    dim: int

    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        return Placed(self.block, (shape, tuple(s.dim for s in beside), self.dim))


@dataclass(frozen=True, kw_only=True)
class BranchSite(NormedSite):
    """A residual branch of a layer, in which it is called `key`. `dim`: the width that its stage asks for, if any;
    `ends`: whether it is the layer's last; `written`: its block, also where an aggregator feeds another form of it."""

    key: str
    written: AnyOp
    residual: Residual
    dim: int | None
    ends: bool

    def at(self, shape: Shape, beside: tuple[Shape, ...]) -> AnyPlaced:
        return at_place(self.block, (shape,), self.dim)

"""A composite at a place, written out: plain parts in the order they run, each with what it reads."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from blockforge.blocks.base import AnyOp, AnyPlaced, Cost, Placed, Scratch, Shape
from blockforge.blocks.compose import memory
from blockforge.blocks.compose.shorter import Shorter, shorter
from blockforge.blocks.facts import Facts, facts
from blockforge.errors import OpError, Path
from blockforge.kernels.costs import costed


@dataclass(frozen=True, slots=True)
class Step:
    """A part that runs.

    Attributes:
        placed: the part, and where it stands.
        inputs: the values it reads: 0 is what the composite reads, n what the n-th step gives.
        shape: of what it gives: of one tile, where it runs on tiles.
        tiles: how many tiles of an image its result is of; 1 outside tiles.
        runs: how often it runs for an image: on how many tiles.
        is_shared: whether an earlier step has its module.
        sized_by: the step that cut the tiles, for one that must know how.
        name: of its module in the composite's; no part of what makes programs equal.
    """

    placed: AnyPlaced
    inputs: tuple[int, ...]
    shape: Shape
    tiles: int = 1
    runs: int = 1
    is_shared: bool = False
    sized_by: int | None = None
    name: tuple[str, ...] = field(default=(), compare=False)
    at: Path = field(default=(), compare=False)

    @property
    def op(self) -> AnyOp:
        return self.placed.op

    @property
    def inline(self) -> str | None:
        """Python in place of a call, see `blocks.part.Join`."""
        return self.op.inline

    @property
    def has_module(self) -> bool:
        return self.inline is None

    @property
    def once(self) -> int:
        """Multiply-adds that a call makes once for all tiles, see `joins.attend`."""
        return self.op.once(*self.placed.told)

    @property
    def classifies(self) -> bool:
        """Whether it gives the classes, which `pre_logits` leaves out."""
        return self.op.classifies

    @property
    def path(self) -> str:
        return ".".join(self.name)


@dataclass(frozen=True)
class Program:
    """The steps of a composite; the last one gives its result. Without steps it gives what it reads."""

    shape: Shape
    steps: tuple[Step, ...]

    @property
    def out_shape(self) -> Shape:
        return self.steps[-1].shape if self.steps else self.shape

    @functools.cached_property
    def shorter(self) -> Shorter:
        """Where it runs in a shorter way than step by step."""
        return shorter(self)

    @functools.cached_property
    def swept(self) -> dict[str, tuple[list[int], int]]:
        """What `memory.sweep` found, by backend."""
        return {}

    def facts(self, backend: str) -> tuple[Facts, ...]:
        """Of each step, on a backend."""
        if (known := self.known_facts.get(backend)) is None:
            known = self.known_facts[backend] = tuple(facts(step.placed, backend) for step in self.steps)
        return known

    @functools.cached_property
    def known_facts(self) -> dict[str, tuple[Facts, ...]]:
        """Of the steps, by backend."""
        return {}

    @functools.cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the steps that read each value."""
        readers: list[list[int]] = [[] for _ in range(len(self.steps) + 1)]
        for number, step in enumerate(self.steps, 1):
            for i in dict.fromkeys(step.inputs):
                readers[i].append(number)
        return tuple(map(tuple, readers))

    @functools.cached_property
    def called(self) -> frozenset[int]:
        """The numbers of the steps that call a module: not those that another's shorter way is."""
        without = {*self.shorter.views, *self.shorter.added}
        return frozenset(n for n, step in enumerate(self.steps, 1) if step.has_module and n not in without)

    def own_modules(self) -> tuple[Step, ...]:
        """The steps that each have a module of their own."""
        return tuple(self.steps[n - 1] for n in sorted(self.called) if not self.steps[n - 1].is_shared)

    def widened_by(self, dim: int | None = None) -> Step | None:
        """The step that gave the result its width, or the last one that would have given it `dim` channels, had it been
        asked: those behind it keep the width of what they read."""
        value = len(self.steps)
        while value:
            step = self.steps[value - 1]
            read = self.shape_of(step.inputs[0])
            if read.dim != self.shape_of(value).dim or (dim is not None and can_give(step.op, read, dim)):
                return step
            value = step.inputs[0]
        return None

    def shape_of(self, value: int) -> Shape:
        return self.steps[value - 1].shape if value else self.shape

    def shape_on(self, shape: Shape) -> Shape:
        """What its steps, outside of tiles, give on another map, where they are to be the same; where one leaves
        nothing of it, that."""
        shapes = [shape]
        for step in self.steps:
            given, (_, *place) = tuple(shapes[i] for i in step.inputs), step.placed.place
            shapes.append(Placed(step.op, (given if step.op.kind == "join" else given[0], *place)).out_shape())
            if min(shapes[-1][:2]) < 1:
                break
        return shapes[-1]

    def cost(self) -> Cost:
        """The sum of the parts' costs, on the backend that costs are of."""
        params = macs = scan = 0
        held: set[Scratch] = set()
        for step, step_facts, beside in zip(self.steps, self.facts(costed()), memory.sweep(self)[0], strict=True):
            cost, once = step_facts.cost, step.once if step.runs > 1 else 0
            params += 0 if step.is_shared else cost.params
            macs += (cost.macs - once) * step.runs + once
            scan += cost.scan * step.runs
            held |= {memory.inside(self, s, beside, step) for s in cost.scratch}
        return Cost(params, macs, scan, frozenset(held))

    def workspace(self) -> int:
        """Most elements alive at once, the result included, what it reads not."""
        return memory.sweep(self)[1]


def can_give(op: AnyOp, shape: Shape, dim: int) -> bool:
    """Whether an op on a map of `shape` gives `dim` channels where it is asked for them."""
    if op.kind not in ("part", "stem", "downsample"):
        return False
    placed: AnyPlaced = Placed(op, (shape, dim))
    try:
        return facts(placed).out_shape.dim == dim
    except OpError:
        return False

"""The steps of a program while it is written, and where an op may stand among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, AnyPlaced, Kind, Norm, Placed, Shape
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.mistakes import Mistakes
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.compose.rolled import MOVED, Rolled, keeps_size, mask_for, rolled_of
from blockforge.blocks.compose.shared import same_module
from blockforge.blocks.compose.written import Map
from blockforge.blocks.facts import Facts, facts
from blockforge.blocks.tokens import maps_at
from blockforge.errors import OpError, Path
from blockforge.kernels.costs import DEFAULT

MAX_STEPS = 2000
"""Of one composite."""
INSIDE: tuple[Kind, ...] = ("part", "join", "act", "norm", "mixer", "ffn", "downsample", "stem")
"""What may stand inside a block, and so wherever a block stands but for norms and aggregators."""


class Steps:
    """Plain parts in a row. Values are numbers: 0 is what the first of them reads, n what the n-th step gives."""

    def __init__(self, shape: Shape) -> None:
        self.shapes, self.tiles = [shape], [1]
        self.rolled: list[Rolled] = [None]
        self.steps: list[Step] = []
        self.said: list[Facts] = []
        self.mistakes = Mistakes()
        self.names: dict[tuple[str, ...], int] = {}
        self.is_shared = False
        self.firsts: dict[tuple[str, ...], AnyPlaced] = {}
        """The parts that have modules of their own, by the names of these."""
        self.unshared: OpError | None = None
        """What is wrong with a part that was to run an earlier one's module and cannot."""

    def step(
        self,
        op: AnyOp,
        inputs: tuple[int, ...],
        dim: int | None,
        name: tuple[str, ...],
        at: Path = (),
        tiles: int | None = None,
    ) -> int:
        """A plain part, at the end of the program.

        Args:
            inputs: one value, or of a join its maps.
            tiles: how many of an image it gives, where these are not those that it reads.
        """
        if len(self.steps) >= MAX_STEPS:
            raise OpError(f"a block has at most {MAX_STEPS} parts", hint="fewer repetitions", code="limit")
        if not self.mistakes.unknown.isdisjoint(inputs):
            return self.unknown(inputs[0], dim)
        placed = at_place(op, tuple(self.shapes[i] for i in inputs), dim)
        said = facts(placed)
        read = max(self.tiles[i] for i in inputs)
        tiles = read if tiles is None else tiles
        name = tuple(map(module_name, name))
        if name and name[0] in _OF_COMPOSED:
            name = (f"{name[0]}_op", *name[1:])
        own = self._unique(name)
        if not self.is_shared:
            self.firsts[own] = placed
        elif self.unshared is None and ((first := self.firsts.get(own)) is None or not same_module(first, placed)):
            self.unshared = _unshared(own, placed, first, at)
        cut = mask_for(placed, [self.shapes[i] for i in inputs], [self.rolled[i] for i in inputs])
        runs = min(read, tiles)
        y = self.append(Step(placed, inputs, said.out_shape, tiles, runs, self.is_shared, cut, own, at), said)
        self.stands_as(y, *inputs)
        if self.rolled[y] is not None and not keeps_size(placed):
            self.rolled[y] = MOVED
        return y

    @contextmanager
    def sharing(self, names: dict[tuple[str, ...], int]) -> Iterator[None]:
        """Inside, steps run the modules of earlier steps of their names. `names`: those that there were before these
        steps, so that names are found anew as they were found then. Raises: OpError where a step cannot."""
        before, self.is_shared = (self.is_shared, self.names), True
        self.names = dict(names)
        try:
            yield
        finally:
            self.is_shared, self.names = before
        error, self.unshared = self.unshared, None
        if error is not None:
            raise error

    def stands_as(self, y: int, *inputs: int) -> None:
        """In rolled tiles the value `y` stands at the positions of these, as far as it is as large."""
        self.rolled[y] = rolled_of(((self.shapes[i], self.rolled[i]) for i in inputs), self.shapes[y])

    def moves(self, y: int, x: int, rolls: bool = False) -> None:
        """The value `y` is `x` at other positions; `rolls`: cut into rolled tiles."""
        self.rolled[y] = MOVED if self.rolled[x] is not None else y if rolls else None

    def append(self, step: Step, said: Facts | None = None) -> int:
        """`said`: what the part says of itself, where it was asked."""
        self.steps.append(step)
        self.said.append(said if said is not None else facts(step.placed))
        return self._value(step.shape, step.tiles)

    def unknown(self, x: int, dim: int | None) -> int:
        """In place of what a mistaken op that reads `x` would give."""
        value = self._value(self.shapes[x]._replace(dim=dim or self.shapes[x].dim), self.tiles[x])
        self.rolled[value] = self.rolled[x]
        self.mistakes.unknown.add(value)
        return value

    def _value(self, shape: Shape, tiles: int) -> int:
        self.shapes.append(shape)
        self.tiles.append(tiles)
        self.rolled.append(None)
        return len(self.shapes) - 1

    def _unique(self, name: tuple[str, ...]) -> tuple[str, ...]:
        """A name that no step has: this one, or it with the next number."""
        wanted, number = name, self.names.get(name, 1)
        while name in self.names:
            number += 1
            name = (*wanted[:-1], f"{wanted[-1]}_{number}")
        self.names[wanted] = number
        self.names.setdefault(name, 1)
        return name

    def finish(self, result: int) -> Program:
        """The program, of which `result` is what it gives. Raises: OpError if mistakes were found in it."""
        self.mistakes.close()
        assert result == len(self.steps), "what is read last is made last"
        program = Program(self.shapes[0], tuple(self.steps))
        program.known_facts[DEFAULT] = tuple(self.said)
        return program


def _unshared(name: tuple[str, ...], placed: AnyPlaced, first: AnyPlaced | None, at: Path) -> OpError:
    """What is wrong with a part that cannot run the module of this name, which an earlier one has."""
    here, said = " and ".join(map(str, maps_at(placed.op.kind, placed.place))), f"'{placed.op.op}'"
    if placed.op.op not in registry.BLOCKS:
        said = f"'{name[-2]}'"  # nobody wrote the part: what is made of it has its name before
    text = f"{said} is not among the parts of the first time, whose weights all times have"
    if first is not None:
        there = " and ".join(map(str, maps_at(first.op.kind, first.place)))
        text = f"{said} reads {there} the first time and {here} later, and is not the same for both"
    error = OpError(text, hint="an op that gives the shape which it reads, or share: false", code="share")
    error.sources = [(f"{said} is written here", at)] if at else []
    return error


@functools.cache
def module_name(name: str) -> str:
    """The name of the module of a part that is called so: another one where torch's modules have the name themselves,
    as they have `double`, and without the dot of a definition that is used under a prefix."""
    return f"{name}_op" if name in _TAKEN else name.replace(".", "_")


_TAKEN = {*dir(nn.Module()), *nn.Module.__annotations__}
_OF_COMPOSED = {*dir(Composed), *Composed.__annotations__} - _TAKEN
"""What the module that holds those of the parts has itself."""


def at_place(op: AnyOp, shapes: tuple[Shape, ...], dim: int | None) -> Placed[*tuple[Any, ...]]:
    """An op on these maps. Raises: OpError for a kind of op that stands nowhere inside a block."""
    shape, kind = shapes[0], op.kind
    if kind == "join":
        return Placed(op, (shapes, dim))
    if kind == "part":
        return Placed(op, (shape, dim))
    if kind in ("mixer", "ffn", "norm", "act"):
        return Placed(op, (shape,))
    if kind in ("stem", "downsample"):
        return Placed(op, (shape, dim if dim is not None else shape.dim))
    raise not_inside(op.op, kind)


def not_inside(name: str, kind: Kind) -> OpError:
    """What is wrong with a block of a kind that stands nowhere inside another."""
    if kind == "aggregator":
        text, hint = f"'{name}' joins maps", f"as in {{op: parallel, join: {name}, of: [...]}}"
    else:
        text = f"'{name}' is a {kind}, which stands under head or heads and not inside other ops"
        hint = "here the same is made of ops, as in [global_pool, layer_norm, logits]"
    return OpError(text, hint=hint, param="op", code="wrong-kind")


def is_norm_without_bias(member: Bound | None) -> bool:
    """Whether an op is a norm, by its name, before which a convolution needs no bias."""
    if member is None:
        return False
    value = member.frame.value(member.value.get("op") if isinstance(member.value, Map) else member.value)
    cls = registry.BLOCKS.get(value) if isinstance(value, str) else None
    return cls is not None and issubclass(cls, Norm) and not cls.bias_before

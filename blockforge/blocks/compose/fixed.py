"""A program that is given as it is: what rewriting a block's parts comes to."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, SkipValidation
from torch import nn

from blockforge.blocks.base import Cost, Head, Placed, Shape
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.head import ComposedHead
from blockforge.blocks.compose.module import Composed
from blockforge.blocks.compose.program import Program
from blockforge.blocks.facts import parameters, resolved


class Fixed(Composite):
    """Parts in the order they run, on maps of one shape."""

    op = "deployed"
    model_config = ConfigDict(arbitrary_types_allowed=True)

    steps: SkipValidation[Program]
    """The parts."""
    names: tuple[tuple[str, ...], ...]
    """Of their modules: programs that differ in them alone are equal, blocks are not."""
    called: str
    """What it stands for."""

    @classmethod
    def of(cls, program: Program, called: str) -> Fixed:
        return cls(steps=program, names=tuple(step.name for step in program.steps), called=called)

    @property
    def title(self) -> str:
        return self.called

    def parameters_dict(self) -> dict[str, Any]:
        return {"steps": listed(self.steps)}

    def program(self, shape: Shape, dim: int | None) -> Program:
        assert shape == self.steps.shape
        return self.steps

    as_program = program

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        raise AssertionError("it is written out already")

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return Composed(self.steps)


class FixedHead(Head):
    """The same as a head."""

    op = "deployed"
    token_rule = "own"

    block: Fixed
    """Its parts."""

    @property
    def title(self) -> str:
        return self.block.title

    def parameters_dict(self) -> dict[str, Any]:
        return self.block.parameters_dict()

    def program(self, shape: Shape, num_classes: int) -> Program:
        return self.block.program(shape, None)

    as_program = program

    def out_shape(self, shape: Shape, num_classes: int) -> Shape:
        return self.block.steps.out_shape

    def cost(self, shape: Shape, num_classes: int) -> Cost:
        return self.block.steps.cost()

    def workspace(self, shape: Shape, num_classes: int) -> int:
        return self.block.steps.workspace()

    def num_parts(self, shape: Shape, num_classes: int) -> int:
        return len(self.block.steps.steps)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return ComposedHead(Placed(self, (shape, num_classes)))


def listed(program: Program) -> list[Any]:
    """The parts of a program as plain data: names, parameters and the values that they read."""
    return [[s.op.op, parameters(resolved(s.placed)), list(s.inputs)] for s in program.steps]

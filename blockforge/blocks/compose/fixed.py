"""A program that is given as it is: what rewriting a block's parts comes to."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, SkipValidation
from torch import nn

from blockforge.blocks.base import Head, Placed, Shape
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.head import ComposedHead
from blockforge.blocks.compose.of_parts import OfParts
from blockforge.blocks.compose.program import Program
from blockforge.blocks.facts import parameters, resolved


class Fixed(Composite):
    """Parts in the order they run, on maps of one shape."""

    op = "deployed"
    by_name = False
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

    def as_program(self, shape: Shape, dim: int | None) -> Program:
        assert shape == self.steps.shape
        return self.steps

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        raise AssertionError("it is written out already")


class FixedHead(OfParts[Shape, int], Head):
    """The same as a head."""

    op = "deployed"
    by_name = False

    block: Fixed
    """Its parts."""

    @property
    def title(self) -> str:
        return self.block.title

    def parameters_dict(self) -> dict[str, Any]:
        return self.block.parameters_dict()

    def as_program(self, shape: Shape, num_classes: int) -> Program:
        return self.block.as_program(shape, None)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        return ComposedHead(Placed(self, (shape, num_classes)))


def listed(program: Program) -> list[Any]:
    """The parts of a program as plain data: names, parameters and the values that they read."""
    return [[s.op.op, parameters(resolved(s.placed)), list(s.inputs)] for s in program.steps]

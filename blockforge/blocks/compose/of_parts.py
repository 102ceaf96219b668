"""Blocks that are their parts: shape, costs, memory and module follow from the program that they write at a place."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Cost, Op, Place, Shape
from blockforge.blocks.compose.program import Program


class OfParts(Op[*Place]):
    """Base of such blocks, beside the base of their kind, which stands after it."""

    token_rule = "own"  # its parts say what they do with tokens
    by_name: ClassVar[bool] = True
    """Whether its name and parameters say what it is; of others only the parts do."""

    @abstractmethod
    def as_program(self, *place: *Place) -> Program:
        """The parts, in the order they run. Raises: OpError where the block cannot stand."""

    def check(self, *place: *Place) -> None:
        self.as_program(*place)

    def out_shape(self, *place: *Place) -> Shape:
        return self.as_program(*place).out_shape

    def cost(self, *place: *Place) -> Cost:
        return self.as_program(*place).cost()

    def workspace(self, *place: *Place) -> int:
        return self.as_program(*place).workspace()

    def num_parts(self, *place: *Place) -> int:
        return len(self.as_program(*place).steps)

    def build(self, *place: *Place) -> nn.Module:
        from blockforge.blocks.compose.module import Composed

        return Composed(self.as_program(*place))

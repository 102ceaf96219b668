"""A third party's block whose module is made with the block itself."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.registry import mixer


@mixer("asking")
class Asking(Mixer):
    """A map times a number."""

    factor: float = 2.0
    """The number."""

    def cost(self, shape: Shape) -> Cost:
        return Cost()

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return AskingModule(self)


class AskingModule(nn.Module):
    """See `Asking`."""

    def __init__(self, op: Asking) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        return x * self.op.factor

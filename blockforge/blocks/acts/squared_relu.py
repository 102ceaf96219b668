"""The rectified linear unit, squared."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("squared_relu")
class SquaredReLU(Act):
    """`max(x, 0)^2`.

    Shape: keeps it.
    Cost: none.
    Reference: Primer, https://arxiv.org/abs/2109.08668.
    """

    overwrites: ClassVar[bool] = True

    def workspace(self, shape: Shape) -> int:
        return 2 * shape.elements  # what is squared, and the square

    def build(self, shape: Shape) -> nn.Module:
        return SquaredReLUModule()


class SquaredReLUModule(nn.Module):
    """See `SquaredReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()

    def overwrite(self, x: Tensor) -> Tensor:
        """The same in the memory of x."""
        return F.relu_(x).square_()

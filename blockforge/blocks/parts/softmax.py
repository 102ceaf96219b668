"""Values that become weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape, TokenRule, divisible
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.errors import OpError

Axis = Literal["channels", "positions", "groups"]


@part("softmax")
class Softmax(Part):
    """Weights that sum to one: over the channels of a position, over the positions of a channel, or over groups, where
    the first channels of all groups weigh each other, then the second, as branches do in selective kernels.

    Shape: x_BHWC -> y_BHWC.
    Cost: no parameters and no multiply-adds.
    Raises: OpError if the groups do not divide the channels, or are given for another axis.
    Reference: Selective Kernel Networks, CVPR 2019, https://arxiv.org/abs/1903.06586; over positions: GCNet,
    https://arxiv.org/abs/1904.11492.
    """

    axis: Axis = "channels"
    """Over what they sum to one."""
    groups: Annotated[int, Field(ge=2, le=65_536)] | None = None
    """With axis groups: how many, side by side in the map; absent: 2."""

    def tokens_are(self) -> TokenRule:
        return "all" if self.axis == "positions" else "each"

    @property
    def mixes(self) -> bool:
        return self.axis == "positions"

    @property
    def num_groups(self) -> int:
        return self.groups or 2

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.axis == "groups":
            divisible(shape.dim, self.num_groups, "channels", "groups", "groups")
        elif self.groups is not None:
            raise OpError(f"there are no groups along {self.axis}", hint="axis: groups", param="groups")

    def resolved(self, shape: Shape, dim: int | None) -> Softmax:
        return Softmax(axis="groups", groups=self.num_groups) if self.axis == "groups" else self

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return SoftmaxModule(self.axis, self.num_groups)


class SoftmaxModule(nn.Module):
    """See `Softmax`."""

    def __init__(self, axis: Axis, groups: int) -> None:
        super().__init__()
        self.axis, self.groups = axis, groups

    def forward(self, x: Tensor) -> Tensor:
        if self.axis == "channels":
            return x.softmax(-1)
        if self.axis == "positions":
            return x.flatten(1, 2).softmax(1).view(x.shape)
        return x.unflatten(-1, (self.groups, -1)).softmax(-2).flatten(-2)

    def extra_repr(self) -> str:
        return f"axis={self.axis}" + (f", groups={self.groups}" if self.axis == "groups" else "")

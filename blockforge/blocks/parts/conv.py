"""A convolution."""

from __future__ import annotations

from blockforge.blocks.base import Op, Shape, TokenRule, divisible
from blockforge.blocks.convolution import Convolution, slid
from blockforge.blocks.fields import Width
from blockforge.blocks.filters import Filter
from blockforge.blocks.parts.dwconv import DepthwisePart
from blockforge.blocks.parts.linear import LinearPart
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("conv")
class Conv(Convolution):
    """A convolution. It gives the width that it is asked for, else the one that it reads.

    Shape: x_BHWC -> y_BHWD, sizes by kernel, stride and padding.
    Cost: kernel height * kernel width * C / groups * D multiply-adds an output position.
    Raises: OpError if the groups do not divide both widths.
    """

    groups: Width | None = None
    """Groups of channels that do not see each other; absent: one, or as `group_width` says."""
    group_width: Width | None = None
    """Channels that a group reads, in place of `groups`."""

    def tokens_are(self) -> TokenRule:
        over = self.window
        is_linear = over.kernel == over.stride == (1, 1) and over.padding in (None, (0, 0))
        return "each" if is_linear else "none"

    def num_groups(self, shape: Shape) -> int:
        return shape.dim // self.group_width if self.group_width is not None else self.groups or 1

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.group_width is not None:
            if self.groups is not None:
                text = f"groups {self.groups} and group_width {self.group_width} say one thing twice"
                raise OpError(text, hint="leave one of them out", param="group_width")
            divisible(shape.dim, self.group_width, "channels", "group_width", "group_width")
        said = "groups" if self.group_width is None else "group_width"
        divisible(shape.dim, self.num_groups(shape), "channels", "groups", said)
        divisible(self.width(shape, dim), self.num_groups(shape), "dim", "groups", said)

    def with_filter(self, filter: Filter) -> Conv:
        return Conv(groups=filter.groups, **slid(filter))

    def resolved(self, shape: Shape, dim: int | None) -> Op[Shape, int | None]:
        """A kernel of one position is a linear layer, one filter a channel a depth-wise convolution."""
        groups, said = self.num_groups(shape), self.said()
        if groups == 1 and said | {"bias": True} == Conv().said():
            return LinearPart(bias=self.has_bias)
        if groups == shape.dim == self.width(shape, dim):
            return DepthwisePart(**said)
        return Conv(groups=groups, **said)

"""An inverted bottleneck between stages: VSSD's overlapping downsampling."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Cost, Downsample, Shape
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import row
from blockforge.blocks.fields import OddKernel, Ratio
from blockforge.blocks.layers import Conv2d, Linear, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.parts.linear import LinearPart
from blockforge.blocks.primitives import conv_size
from blockforge.blocks.registry import downsample


@downsample("inverted_downsample")
class InvertedDownsample(Downsample):
    """1x1 convolution to `ratio` times the new width, ReLU, depth-wise convolution of stride 2, ReLU, 1x1
    convolution to the new width, BatchNorm; all with biases.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded up.
    Cost: ratio * C * D multiply-adds a position of x, ratio * D * (D + kernel_size^2) a position of y.
    Reference: VSSD, https://arxiv.org/abs/2407.18559; MLLA, https://arxiv.org/abs/2405.16605.
    """

    ratio: Ratio = 4.0
    """Width in between, times the new width."""
    kernel_size: OddKernel = 3
    """Side of the depth-wise kernel."""

    def hidden(self, dim: int) -> int:
        return int(dim * self.ratio)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        height, width = (conv_size(s, self.kernel_size, 2, self.kernel_size // 2) for s in shape[:2])
        return Shape(height, width, dim)

    def cost(self, shape: Shape, dim: int) -> Cost:
        hidden, out = self.hidden(dim), self.out_shape(shape, dim)
        cost = primitives.linear(shape.dim, hidden, shape.positions)
        cost += primitives.dwconv(hidden, (self.kernel_size, self.kernel_size), out.positions)
        return cost + primitives.linear(hidden, dim, out.positions) + primitives.norm(dim)

    def workspace(self, shape: Shape, dim: int) -> int:
        hidden, out = self.hidden(dim), self.out_shape(shape, dim).positions
        # behind one position's kernel the last layer may not add its bias at once
        ending = out * (hidden + (1 + (self.kernel_size == 1)) * dim)
        return max(hidden * (shape.positions + out), ending, 2 * out * dim)

    def as_program(self, shape: Shape, dim: int) -> Program:
        hidden, side = self.hidden(dim), self.kernel_size
        middle = Conv(kernel_size=side, stride=2, padding=side // 2, groups=hidden)
        members = ((LinearPart(), hidden), ReLU(), (middle, hidden), ReLU(), (LinearPart(), dim), BatchNorm())
        return row(shape, *members)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        hidden = self.hidden(dim)
        steps = Maps(
            Linear(shape.dim, hidden),
            nn.ReLU(inplace=True),  # nothing else reads the convolution's result
            Conv2d(hidden, hidden, self.kernel_size, stride=2, groups=hidden),
            nn.ReLU(inplace=True),
            Linear(hidden, dim),
            nn.BatchNorm2d(dim),
        )
        return default_init(steps)

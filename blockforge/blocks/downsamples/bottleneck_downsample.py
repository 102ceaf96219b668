"""ResNet's step between stages: a strided bottleneck beside a strided projection."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Cost, Downsample, Shape, divisible, hidden_width
from blockforge.blocks.compose.joined import Add
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import add_row
from blockforge.blocks.compose.steps import Steps
from blockforge.blocks.fields import ActParam, Count, OddKernel, Ratio
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.blocks.mixers.bottleneck import bottleneck, bottleneck_cost, bottleneck_row, bottleneck_workspace
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import downsample
from blockforge.kernels.cpu import activate


@downsample("bottleneck_downsample")
class BottleneckDownsample(Downsample):
    """A bottleneck whose middle convolution has a stride, plus a 1x1 convolution of the same stride with
    BatchNorm; then an activation. It is the first block of a stage of ResNet, whose depth counts it.

    Shape: x_BHWC -> y_B(H/stride)(W/stride)D, sizes rounded up.
    Cost: w * C multiply-adds a position of x and (C + w) * D + kernel_size^2 * w^2 / groups a position of y,
        w = ratio * D.
    Raises: OpError if `groups` does not divide w.
    Reference: Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385.
    """

    stride: Annotated[int, Field(ge=1, le=16)] = 2
    """Stride of both ways; 1 changes the width alone."""
    ratio: Ratio = 0.25
    """Width inside, times the new width."""
    kernel_size: OddKernel = 3
    """Side of the kernel in the middle."""
    groups: Count = 1
    """Groups of the convolution in the middle."""
    act: ActParam = ReLU()
    """Activation, of the sum too."""

    def inside(self, dim: int) -> int:
        """Width inside."""
        return hidden_width(dim, self.ratio, "ratio")

    def check(self, shape: Shape, dim: int) -> None:
        divisible(self.inside(dim), self.groups, "the width inside", "groups", "groups")

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return conv_shape(shape, dim, 1, self.stride)

    def cost(self, shape: Shape, dim: int) -> Cost:
        out = self.out_shape(shape, dim)
        cost = bottleneck_cost(shape, out, self.inside(dim), self.kernel_size, self.groups, self.act)
        held = {"read": shape.positions, "alive": 2 * out.elements}
        cost += primitives.conv(shape.dim, dim, (1, 1), out.positions, bias=False, **held)
        return cost + primitives.norm(dim) + self.act.cost(out)

    def workspace(self, shape: Shape, dim: int) -> int:
        out = self.out_shape(shape, dim)
        branch = bottleneck_workspace(shape, out, self.inside(dim), self.act)
        return max(branch, out.elements + max(2 * out.elements, self.act.beside(out)))

    def as_program(self, shape: Shape, dim: int) -> Program:
        steps = Steps(shape)
        members = bottleneck_row(dim, self.inside(dim), self.kernel_size, self.groups, self.act, self.stride)
        branch = add_row(steps, 0, members, "branch")
        shortcut = Conv(stride=self.stride, padding=0, bias=False)
        around = add_row(steps, 0, [(shortcut, dim), BatchNorm()], "shortcut")
        y = steps.step(Add(), (branch, around), None, ("add",))
        steps.step(self.act, (y,), None, ("act",))
        return Program(shape, tuple(steps.steps))

    def build(self, shape: Shape, dim: int) -> nn.Module:
        inside, out = self.inside(dim), self.out_shape(shape, dim)
        acts = [self.act.build(at) for at in (shape._replace(dim=inside), out._replace(dim=inside), out)]
        return BottleneckDownsampleModule(
            shape.dim, dim, inside, self.kernel_size, self.groups, acts[:2], acts[2], self.stride
        )


class BottleneckDownsampleModule(nn.Module):
    """See `BottleneckDownsample`. `acts`: of the branch; `act`: of the sum."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        inside: int,
        kernel_size: int,
        groups: int,
        acts: list[nn.Module],
        act: nn.Module,
        stride: int,
    ) -> None:
        super().__init__()
        self.branch = bottleneck(in_dim, dim, inside, kernel_size, groups, acts, stride)
        self.shortcut = Maps(Conv2d(in_dim, dim, 1, stride=stride, bias=False), nn.BatchNorm2d(dim))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.branch.gives_own():
            y += self.shortcut(x)
        else:
            y = y + self.shortcut(x)
        return activate(self.act, y, own=True)

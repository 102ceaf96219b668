"""ResNet's bottleneck: a convolution between two 1x1 convolutions that narrow and widen the map."""

from __future__ import annotations

import math

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Act, Cost, Mixer, Shape, divisible, hidden_width
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import Member, row
from blockforge.blocks.fields import ActParam, Count, OddKernel, Ratio
from blockforge.blocks.layers import Conv2d, Linear
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.parts.linear import LinearPart
from blockforge.blocks.registry import mixer


@mixer("bottleneck")
class Bottleneck(Mixer):
    """1x1 convolution to `ratio` times the width, convolution, 1x1 convolution back; without biases, each
    followed by BatchNorm, the first two by an activation. ResNet's branch is
    `{op: bottleneck, norm: none, post_act: relu}`; with more groups it is ResNeXt's.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 2 * dim * w + kernel_size^2 * w^2 / groups multiply-adds a position, w = ratio * dim.
    Raises: OpError if `groups` does not divide w.
    Reference: Deep Residual Learning for Image Recognition, CVPR 2016, https://arxiv.org/abs/1512.03385.
    """

    ratio: Ratio = 0.25
    """Width inside, times dim."""
    kernel_size: OddKernel = 3
    """Side of the kernel in the middle."""
    groups: Count = 1
    """Groups of the convolution in the middle."""
    act: ActParam = ReLU()
    """Activation behind the first two convolutions."""

    def inside(self, dim: int) -> int:
        """Width inside."""
        return hidden_width(dim, self.ratio, "ratio")

    def check(self, shape: Shape) -> None:
        divisible(self.inside(shape.dim), self.groups, "the width inside", "groups", "groups")

    def cost(self, shape: Shape) -> Cost:
        return bottleneck_cost(shape, shape, self.inside(shape.dim), self.kernel_size, self.groups, self.act)

    def workspace(self, shape: Shape) -> int:
        return bottleneck_workspace(shape, shape, self.inside(shape.dim), self.act)

    def as_program(self, shape: Shape) -> Program:
        members = bottleneck_row(shape.dim, self.inside(shape.dim), self.kernel_size, self.groups, self.act)
        return row(shape, *members)

    def build(self, shape: Shape) -> nn.Module:
        inside = self.inside(shape.dim)
        acts = [self.act.build(shape._replace(dim=inside)) for _ in range(2)]
        return bottleneck(shape.dim, shape.dim, inside, self.kernel_size, self.groups, acts)


def bottleneck(
    in_dim: int, dim: int, inside: int, kernel_size: int, groups: int, acts: list[nn.Module], stride: int = 1
) -> Maps:
    """The branch without its sum. The last BatchNorm starts at zero: the branch gives nothing at first. `acts`: behind
    the first two convolutions."""
    last = nn.BatchNorm2d(dim)
    nn.init.zeros_(last.weight)
    return Maps(
        _pointwise(in_dim, inside),
        nn.BatchNorm2d(inside),
        acts[0],
        Conv2d(inside, inside, kernel_size, stride=stride, groups=groups, bias=False),
        nn.BatchNorm2d(inside),
        acts[1],
        _pointwise(inside, dim),
        last,
    )


def bottleneck_row(dim: int, inside: int, kernel_size: int, groups: int, act: Act, stride: int = 1) -> list[Member]:
    """What `bottleneck` builds, as parts."""
    middle = Conv(kernel_size=kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False)
    narrow, wide = LinearPart(bias=False), LinearPart(bias=False)
    return [(narrow, inside), BatchNorm(), act, (middle, inside), BatchNorm(), act, (wide, dim), BatchNorm()]


def bottleneck_cost(shape: Shape, out: Shape, inside: int, kernel_size: int, groups: int, act: Act) -> Cost:
    """Cost of `bottleneck` from a map of `shape` to one of `out`."""
    kernel, before, after = (kernel_size, kernel_size), inside * shape.positions, inside * out.positions
    held = {"read": shape.positions, "alive": before + after}
    last = after + out.elements
    cost = primitives.linear(shape.dim, inside, shape.positions, bias=False, alive=before) + primitives.norm(inside)
    cost += primitives.conv(inside, inside, kernel, out.positions, groups=groups, bias=False, **held)
    cost += primitives.norm(inside) + primitives.linear(inside, out.dim, out.positions, bias=False, alive=last)
    cost += act.cost(shape._replace(dim=inside)) + act.cost(out._replace(dim=inside))
    return cost + primitives.norm(out.dim)


def bottleneck_workspace(shape: Shape, out: Shape, inside: int, act: Act) -> int:
    """Workspace of `bottleneck`: each layer's input and output."""
    first = shape._replace(dim=inside)  # of the two maps inside the larger one
    return max(first.elements + max(first.elements, act.beside(first)), 2 * out.elements)


def _pointwise(in_dim: int, dim: int) -> Linear:
    """A 1x1 convolution without bias, started as one."""
    layer = Linear(in_dim, dim, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / dim))
    return layer

"""sMLP: each position is mixed with its row and its column alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.fields import ActParam, OddKernel
from blockforge.blocks.layers import DWConv, Linear, default_init, same_size
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.registry import mixer
from blockforge.kernels.cpu import untouched


@mixer("sparse_mlp")
class SparseMLP(Mixer):
    """Activation and depth-wise convolution, BatchNorm and activation; then a linear layer along rows, one
    along columns, and a linear layer that joins both with the map itself. sMLPNet's branch is
    `{op: sparse_mlp, norm: batch_norm}`.

    Shape: x_BHWC -> y_BHWC, only the H and W it was built for: its parameters depend on them.
    Cost: (H + W + 3 dim + kernel_size^2) * dim multiply-adds a position.
    Reference: Sparse MLP for Image Recognition, AAAI 2022, https://arxiv.org/abs/2109.05422.
    """

    kernel_size: OddKernel | None = 3
    """Side of the depth-wise kernel (no bias); absent: neither it nor what stands behind it."""
    act: ActParam = GELU()
    """Activation."""

    def cost(self, shape: Shape) -> Cost:
        height, width, dim = shape
        cost = primitives.linear(width, width, height * dim) + primitives.linear(height, height, width * dim)
        if self.kernel_size is not None:
            kernel = (self.kernel_size, self.kernel_size)
            cost += primitives.dwconv(dim, kernel, shape.positions, bias=False) + primitives.norm(dim)
        return cost + self.act.cost(shape) + primitives.linear(3 * dim, dim, shape.positions, bias=False)

    def workspace(self, shape: Shape) -> int:
        # the map, unless it is what comes in; its rows and its columns; and all three side by side
        act = self.act.workspace(shape)
        own = self.kernel_size is not None or act > 0
        return max((5 + own) * shape.elements, shape.elements + act)

    def build(self, shape: Shape) -> nn.Module:
        return SparseMLPModule(shape, self.kernel_size, self.act.build(shape))


class SparseMLPModule(nn.Module):
    """See `SparseMLP`."""

    def __init__(self, shape: Shape, kernel_size: int | None, act: nn.Module) -> None:
        super().__init__()
        self.size, dim = (shape.height, shape.width), shape.dim
        self.dwconv = DWConv(dim, kernel_size, bias=False) if kernel_size is not None else None
        self.bn = nn.BatchNorm2d(dim) if kernel_size is not None else None
        self.act = act
        self.rows = Linear(shape.width, shape.width)
        self.columns = Linear(shape.height, shape.height)
        self.fuse = Linear(3 * dim, dim, bias=False)
        default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "sparse_mlp")
        return self.fuse(self.mix(self.local(x)))

    def local(self, x: Tensor) -> Tensor:
        """What is mixed: the activated map, convolved."""
        x = self.act(x)
        if self.dwconv is not None and self.bn is not None:
            x = self.act(on_nchw(self.bn, on_nchw(self.dwconv, x)))
        return x

    def mix(self, x: Tensor) -> Tensor:
        """The map, its mixed rows and its mixed columns side by side."""
        return torch.cat([x, _along(x, 2, self.rows), _along(x, 1, self.columns)], dim=-1)


def _along(x: Tensor, axis: int, linear: nn.Linear) -> Tensor:
    """A linear layer over the positions of one axis of x_BHWC."""
    lines = x.transpose(axis, 3)
    y: Tensor = F.linear(lines, linear.weight, linear.bias) if untouched(linear, Linear) else linear(lines)
    return y.transpose(axis, 3)

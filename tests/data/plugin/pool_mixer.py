"""A third party's block, as a plugin file: pooling as a token mixer."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.fields import OddKernel
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import mixer


@mixer("pool_mixer")
class PoolMixer(Mixer):
    """The mean over a square of positions, then a linear layer."""

    kernel_size: OddKernel = 3
    """Side of the square."""

    def cost(self, shape: Shape) -> Cost:
        return primitives.linear(shape.dim, shape.dim, shape.positions)

    def workspace(self, shape: Shape) -> int:
        return 2 * shape.elements

    def build(self, shape: Shape) -> nn.Module:
        return PoolMixerModule(shape.dim, self.kernel_size)


class PoolMixerModule(nn.Module):
    """See `PoolMixer`."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size, stride=1, padding=kernel_size // 2)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

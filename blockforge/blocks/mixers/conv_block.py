"""Two convolutions with BatchNorm: MambaVision's block of the first stages."""

from __future__ import annotations

from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu_tanh import GELUTanh
from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.fields import ActParam, OddKernel
from blockforge.blocks.layers import Conv2d, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.registry import mixer


@mixer("conv_block")
class ConvBlock(Mixer):
    """Convolution, BatchNorm, activation, convolution, BatchNorm; usually the branch
    `{op: conv_block, norm: none}`.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 2 * kernel_size^2 * dim^2 multiply-adds a position.
    Reference: MambaVision, CVPR 2025, https://arxiv.org/abs/2407.08083, section 3.1.
    """

    kernel_size: OddKernel = 3
    """Side of both kernels."""
    act: ActParam = GELUTanh()
    """Activation between the convolutions."""

    def cost(self, shape: Shape) -> Cost:
        dim, kernel = shape.dim, (self.kernel_size, self.kernel_size)
        conv = primitives.conv(dim, dim, kernel, shape.positions) + primitives.norm(dim)
        return conv + self.act.cost(shape) + conv

    def workspace(self, shape: Shape) -> int:
        return shape.elements + max(shape.elements, self.act.beside(shape))

    def build(self, shape: Shape) -> nn.Module:
        dim = shape.dim
        first, second = (Conv2d(dim, dim, self.kernel_size) for _ in range(2))
        act = self.act.build(shape)
        return default_init(Maps(first, nn.BatchNorm2d(dim), act, second, nn.BatchNorm2d(dim)))

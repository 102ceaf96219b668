"""A step that is taken behind a blur."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.computed import Computed
from blockforge.blocks.part import Part
from blockforge.blocks.registry import part
from blockforge.blocks.sliding import Window
from blockforge.errors import OpError


@part("blur_pool")
class BlurPool(Part):
    """Every `stride`-th position of a blurred map, so that a shift of the image changes little: each channel under a
    fixed kernel of binomial coefficients, [1 2 1] / 4 both ways for a side of 3. At its sides the map is mirrored.

    Shape: x_BHWC -> y_BHWC, sizes by kernel and stride.
    Cost: no parameters; kernel_size^2 * C multiply-adds an output position.
    Raises: OpError if the map is too small to be mirrored.
    Reference: Making Convolutional Networks Shift-Invariant Again, ICML 2019, https://arxiv.org/abs/1904.11486.
    """

    kernel_size: Annotated[int, Field(ge=2, le=9)] = 3
    """Side of the kernel."""
    stride: Annotated[int, Field(ge=1, le=32)] = 2
    """Steps of the kernel."""
    mixes: ClassVar[bool] = True

    @property
    def mirrored(self) -> int:
        """Positions on each side."""
        return (self.stride - 1 + self.kernel_size - 1) // 2

    def check(self, shape: Shape, dim: int | None) -> None:
        if self.mirrored >= min(shape.height, shape.width):
            text = f"a map of {shape.height}x{shape.width} has no {self.mirrored} positions to mirror at a side"
            raise OpError(text, hint="a smaller kernel or stride, or a larger map", code="map-too-small")

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        side, step, pad = self.kernel_size, self.stride, self.mirrored
        return Window((side, side), (step, step), (1, 1), (pad, pad)).out_shape(shape, shape.dim)

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        blur = primitives.dwconv(
            shape.dim, (self.kernel_size, self.kernel_size), self.out_shape(shape, dim).positions, bias=False
        )
        return blur._replace(params=0)

    def workspace(self, shape: Shape, dim: int | None) -> int:
        padded = (shape.height + 2 * self.mirrored) * (shape.width + 2 * self.mirrored) * shape.dim
        return self.out_shape(shape, dim).elements + (padded if self.mirrored else 0)

    def build(self, shape: Shape, dim: int | None) -> BlurPoolModule:
        return BlurPoolModule(shape.dim, self.kernel_size, self.stride, self.mirrored)


class BlurPoolModule(Computed):
    """See `BlurPool`. Of x_BHWC."""

    def __init__(self, dim: int, kernel_size: int, stride: int, mirrored: int) -> None:
        super().__init__()
        self.dim, self.kernel_size, self.stride, self.mirrored = dim, kernel_size, stride, mirrored
        self.hold_computed()

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        line = torch.tensor([float(math.comb(self.kernel_size - 1, i)) for i in range(self.kernel_size)], device=device)
        return {"blur": torch.outer(line, line) / line.sum() ** 2}

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW, pad = x_BHWC.permute(0, 3, 1, 2), self.mirrored
        if pad:
            x_BCHW = F.pad(x_BCHW, (pad, pad, pad, pad), mode="reflect")
        blur = self.held("blur", x_BCHW).to(x_BCHW.dtype)
        y_BCHW = F.conv2d(x_BCHW, blur.expand(self.dim, 1, -1, -1), stride=self.stride, groups=self.dim)
        return y_BCHW.permute(0, 2, 3, 1)

"""Depth-wise convolution as a token mixer."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Cost, Layout, Mixer, Shape
from blockforge.blocks.layers import ConvInit
from blockforge.blocks.parts.dwconv import DepthwisePart
from blockforge.blocks.registry import mixer
from blockforge.blocks.sliding import Padding, Sides, pair
from blockforge.errors import OpError


@mixer("dwconv")
class DepthwiseConv(Mixer):
    """Depth-wise convolution: one filter a channel. As the branch `{op: dwconv, norm: none, drop_path: false}`
    it is the positional convolution of SparX and VSSD. In a branch it keeps the map's size; as a part of a block it
    need not.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: H * W * dim * kernel_size^2 multiply-adds; dim * (kernel_size^2 + 1) parameters.
    Raises: OpError if in a branch it changes the map's size.
    Reference: Conditional Positional Encodings, https://arxiv.org/abs/2102.10882.
    """

    residual: ClassVar[bool] = True

    kernel_size: Sides = 3
    """Sides of the kernel."""
    stride: Sides | None = None
    """As a part: steps of the kernel; absent: 1."""
    dilation: Sides | None = None
    """As a part: distance of the positions that the kernel reads; absent: 1."""
    padding: Padding | None = None
    """As a part: positions around the map, as `conv` has them; absent: `same`."""
    bias: bool | None = None
    """Bias of the convolution; absent: yes, but as a part not directly before a norm that needs none."""
    init: ConvInit = "fan_out"
    """How the weights start: a normal of variance 2 / fan_out, or one of deviation 0.02."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def as_part(self) -> DepthwisePart:
        return DepthwisePart(**{name: value for name, value in self if value is not None})

    def check(self, shape: Shape) -> None:
        sides = pair(self.kernel_size)
        if even := next((side for side in sides if side % 2 == 0), None):
            hint = f"{even - 1} or {even + 1} keep the map's size"
            raise OpError(f"kernel size {even} is even", hint=hint, param="kernel_size", code="value")
        for name in ("stride", "dilation", "padding"):
            value = getattr(self, name)
            if value is not None and not DepthwisePart(kernel_size=self.kernel_size, **{name: value}).window.keeps_size:
                text = f"{name} {value} does not keep the map of a branch with its neighbours"
                hint = "leave it out, or make the convolution a part of a block"
                raise OpError(text, hint=hint, param=name, code="value")

    def resolved(self, shape: Shape) -> DepthwiseConv:
        how = {"stride": None, "dilation": None, "padding": None, "bias": self.as_part().has_bias}
        return self.model_copy(update=how)

    def cost(self, shape: Shape) -> Cost:
        return self.as_part().cost(shape, None)

    def workspace(self, shape: Shape) -> int:
        return self.as_part().workspace(shape, None)

    def build(self, shape: Shape) -> nn.Module:
        return self.as_part().build(shape, None)

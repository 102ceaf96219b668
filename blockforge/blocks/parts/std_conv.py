"""A convolution of standardised weights."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Layout, Op, Shape, TokenRule
from blockforge.blocks.fields import Eps
from blockforge.blocks.layers import Conv2d, ConvInit
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.registry import part
from blockforge.blocks.sliding import Window, padded
from blockforge.errors import OpError
from blockforge.kernels.cpu import conv2d


@part("std_conv")
class StdConv(Conv):
    """A convolution whose weights are standardised whenever they are used: those of a channel that it gives have mean 0
    and variance 1, times 1 / sqrt(how many there are), times `gamma`, and times a learnt gain: networks of them need
    no norms (NFNet); `gain: false` is weight standardisation alone, without the factor (BiT).

    Shape: x_BHWC -> y_BHWD, sizes by kernel, stride and padding.
    Cost: kernel height * kernel width * C / groups * D multiply-adds an output position; D gains.
    Raises: OpError if the groups do not divide both widths, and for one weight a channel.
    Reference: Characterizing signal propagation to close the performance gap in unnormalized ResNets, ICLR 2021,
    https://arxiv.org/abs/2101.08692; Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    https://arxiv.org/abs/1903.10520.
    """

    gain: bool = True
    """Whether the standardised weights have a learnt gain and the factor 1 / sqrt(how many there are)."""
    gamma: Annotated[float, Field(gt=0, le=100)] = 1.0
    """What makes up for the activation behind: 1.7139588594436646 for relu, 1.7881293296813965 for silu."""
    eps: Eps = 1e-6
    """Added to the variance."""

    @property
    def layout(self) -> Layout:
        return "NHWC"

    def check(self, shape: Shape, dim: int | None) -> None:
        super().check(shape, dim)
        if shape.dim == self.num_groups(shape) and self.window.kernel == (1, 1):
            hint = "more channels a group, or a larger kernel"
            raise OpError("weights of one number for each channel have no variance", hint=hint, param="kernel_size")

    def tokens_are(self) -> TokenRule:
        return "none"

    def resolved(self, shape: Shape, dim: int | None) -> Op[Shape, int | None]:
        return StdConv(
            groups=self.num_groups(shape), gain=self.gain, gamma=self.gamma, eps=self.eps, **self.said()
        )  # one filter a channel, or one position, is no other layer

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        cost = super().cost(shape, dim)
        return cost._replace(params=cost.params + (self.width(shape, dim) if self.gain else 0))

    def filter_values(self, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        assert isinstance(module, StdConv2d)
        return module.standardised(), module.bias

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return StdConv2d(
            shape.dim, self.width(shape, dim), self.window, groups=self.num_groups(shape), bias=self.has_bias,
            init=self.init, gain=self.gain, gamma=self.gamma, eps=self.eps,
        )  # fmt: skip


class StdConv2d(nn.Module):
    """See `StdConv`. Of x_BHWC. It is none of torch's convolutions: their weights are what they compute with."""

    def __init__(
        self, in_chs: int, out_chs: int, over: Window, *, groups: int, bias: bool, init: ConvInit, gain: bool,
        gamma: float, eps: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stride, self.dilation, self.groups, self.kernel_size = over.stride, over.dilation, groups, over.kernel
        self.padding = over.padding or (0, 0)
        self.over, self.init, self.eps = over, init, eps
        self.weight = nn.Parameter(torch.empty(out_chs, in_chs // groups, *over.kernel))
        self.bias = nn.Parameter(torch.empty(out_chs)) if bias else None
        self.gain = nn.Parameter(torch.empty(out_chs, 1, 1, 1)) if gain else None
        self.factor = gamma * self.weight[0].numel() ** -0.5 if gain else gamma
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As a convolution's; gains start at 1."""
        out_chs, width = self.weight.shape[:2]
        with torch.device(self.weight.device), torch.no_grad():
            like = Conv2d(
                width * self.groups, out_chs, self.kernel_size, groups=self.groups, bias=self.bias is not None,
                init=self.init,
            )  # fmt: skip
            self.weight.copy_(like.weight)
            if self.bias is not None and like.bias is not None:
                self.bias.copy_(like.bias)
        if self.gain is not None:
            nn.init.ones_(self.gain)

    def standardised(self) -> Tensor:
        """The weights as they are used."""
        var, mean = torch.var_mean(self.weight, dim=(1, 2, 3), unbiased=False, keepdim=True)
        factor = torch.rsqrt(var + self.eps) * self.factor
        return (self.weight - mean) * (factor if self.gain is None else factor * self.gain)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW, weight = x_BHWC.permute(0, 3, 1, 2), self.standardised()
        if self.over.padding is None:
            x_BCHW = padded(x_BCHW, self.over)
        if self.dilation != (1, 1) and self.kernel_size != (1, 1):
            y_BCHW = F.conv2d(x_BCHW, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return y_BCHW.permute(0, 2, 3, 1).contiguous()  # torch's own way gives NCHW
        y_BCHW = conv2d(x_BCHW, weight, self.bias, self.stride, self.padding, self.groups, self.kernel_size)
        return y_BCHW.permute(0, 2, 3, 1)

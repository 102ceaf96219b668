"""The layers that blocks are built from: torch's own, on channels-last maps, with the field's initialisation.

Shapes: B batch, H height, W width, C channels. A contiguous x_BHWC, permuted to NCHW, is what torch calls
channels-last, so convolutions and linear layers share one layout without copies.
"""

from __future__ import annotations

import math
from typing import Literal


import torch
import torch.nn.functional as F
from torch import Tensor, nn

ConvInit = Literal["fan_out", "trunc_normal"]


class Linear(nn.Linear):
    """A linear layer on the last axis; weights start as a normal of deviation 0.02 cut at 2, biases at 0.

    On the CPU a float32 map goes through the 1x1 convolution that it is: oneDNN uses the widest vectors of any
    processor, the BLAS behind `F.linear` does not on some (measured: docs/performance.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        on_map = x.ndim == 4 and x.dtype == torch.float32 and x.device.type == "cpu"
        if not on_map or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
            return F.linear(x, self.weight, self.bias)
        # The dilation is without effect on a 1x1 kernel; it keeps torch from its BLAS path with one thread.
        y = F.conv2d(x.permute(0, 3, 1, 2), self.weight[:, :, None, None], self.bias, dilation=2)
        return y.permute(0, 2, 3, 1)

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Conv2d(nn.Conv2d):
    """A 2D convolution on x_BHWC. `padding` defaults to half the kernel.

    Weights start as a normal of variance 2 / fan_out (`fan_out`) or of deviation 0.02 (`trunc_normal`).
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        bias: bool = True,
        init: ConvInit = "fan_out",
    ) -> None:
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        pad = (kernel[0] // 2, kernel[1] // 2) if padding is None else padding
        self.init = init
        super().__init__(in_chs, out_chs, kernel, stride=stride, padding=pad, groups=groups, bias=bias)

    def reset_parameters(self) -> None:
        if self.init == "fan_out":
            fan_out = self.weight[0, 0].numel() * self.out_channels // self.groups
            nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_out))
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x.permute(0, 3, 1, 2), self.weight, self.bias).permute(0, 2, 3, 1)


class DWConv(Conv2d):
    """A depth-wise convolution on x_BHWC: one filter a channel, same size."""

    def __init__(
        self, dim: int, kernel_size: int | tuple[int, int], *, bias: bool = True, init: ConvInit = "fan_out"
    ) -> None:
        super().__init__(dim, dim, kernel_size, groups=dim, bias=bias, init=init)

    def residual(self, x: Tensor) -> Tensor:
        """`x + self(x)`, with the identity in the kernel's centre: one pass over the map in place of two.

        In half precision the sum 1 + weight would round the weight away, so there it is two passes.
        """
        if x.dtype not in (torch.float32, torch.float64):
            return x + self(x)
        height, width = self.kernel_size
        centre = F.pad(self.weight.new_ones(1, 1, 1, 1), (width // 2, width // 2, height // 2, height // 2))
        return self._conv_forward(x.permute(0, 3, 1, 2), self.weight + centre, self.bias).permute(0, 2, 3, 1)


class DropPath(nn.Module):
    """Drops the whole branch of an image with probability `rate` in training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


_ACTS = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """The activation called `name` (see `fields.Act`)."""
    return _ACTS[name]()


def split_heads(x_BLC: Tensor, num_heads: int) -> Tensor:
    """(B, L, C) -> (B, num_heads, L, C / num_heads), a view."""
    return x_BLC.unflatten(-1, (num_heads, -1)).transpose(1, 2)



"""The layers that blocks are built from: torch's own, with the field's initialisation, fast on channels-last maps.

Shapes: B batch, H height, W width, C channels. A contiguous x_BHWC, permuted to NCHW, is what torch calls
channels-last, so convolutions and linear layers share one layout without copies. Each takes and gives what its class in
torch does; see `blocks.leaves`.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from blockforge.blocks.leaves import on_nchw
from blockforge.errors import OpError
from blockforge.kernels.cpu import add_dwconv, conv2d, faster, untouched
from blockforge.kernels.dwconv import dwconv
from blockforge.kernels.linear import linear

ConvInit = Literal["fan_out", "trunc_normal", "uniform"]
"""How a convolution starts: normal of variance 2 / fan_out, truncated normal of deviation 0.02, or as torch does."""


M = TypeVar("M", bound=nn.Module)


class Linear(nn.Linear):
    """A linear layer on the last axis; weights start as a normal of deviation 0.02 cut at 2, or as `init` says."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, init: ConvInit = "trunc_normal"
    ) -> None:
        self.init = init
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        if self.init == "uniform":
            super().reset_parameters()
            return
        if self.init == "fan_out":  # as a 1x1 convolution's
            nn.init.normal_(self.weight, std=math.sqrt(2.0 / self.out_features))
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @faster
    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """A 2D convolution of x_BCHW. `padding` defaults to half the kernel."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        init: ConvInit = "fan_out",
    ) -> None:
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        pad = (kernel[0] // 2, kernel[1] // 2) if padding is None else padding
        self.init = init
        super().__init__(in_chs, out_chs, kernel, stride, pad, dilation, groups, bias)

    def reset_parameters(self) -> None:
        if self.init == "uniform":
            super().reset_parameters()
            return
        if self.init == "fan_out":
            fan_out = self.weight[0, 0].numel() * self.out_channels // self.groups
            nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_out))
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @faster
    def forward(self, x: Tensor) -> Tensor:
        if self.dilation != (1, 1) and self.kernel_size != (1, 1):
            y = super().forward(x)
            return y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # torch's own way gives NCHW
        return conv2d(x, self.weight, self.bias, self.stride, self.padding, self.groups, self.kernel_size)  # type: ignore[arg-type]


class DWConv(Conv2d):
    """A depth-wise convolution of x_BCHW: one filter a channel, same size."""

    def __init__(
        self, dim: int, kernel_size: int | tuple[int, int], *, bias: bool = True, init: ConvInit = "fan_out"
    ) -> None:
        super().__init__(dim, dim, kernel_size, groups=dim, bias=bias, init=init)

    @faster
    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (1, 1):
            return super().forward(x)
        return dwconv(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)

    def residual(self, x: Tensor) -> Tensor:
        """`x + self(x)` of x_BCHW, in one pass over the map where its type allows."""
        return add_dwconv(self, x)


def residual_dwconv(conv: nn.Module, x_BHWC: Tensor) -> Tensor:
    """`x + conv(x)` as y_BHWC."""
    if untouched(conv, DWConv):  # in one pass
        return on_nchw(conv.residual, x_BHWC)  # type: ignore[arg-type]
    return x_BHWC + on_nchw(conv, x_BHWC)


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


def same_size(x: Tensor, size: tuple[int, int], what: str) -> None:
    """Raise `OpError` if a map is of another size than the one that parameters were made for."""
    if tuple(x.shape[1:3]) != tuple(size):
        text = f"{what} was built for maps of {size[0]}x{size[1]}, not {x.shape[1]}x{x.shape[2]}"
        hint = "its parameters depend on the size: build the model for this one with input.size"
        raise OpError(text, hint=hint)


def copied(x: Tensor) -> Tensor:
    """The same in memory of its own, laid out as its shape says; also where it lies so already, as a map of one
    position does: what reads a copy may overwrite it."""
    return x.clone(memory_format=torch.contiguous_format)


def default_init(module: M) -> M:
    """`module`, all linear layers and convolutions in it started as torch does, for code that leaves it at that."""
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d):
            layer.init = "uniform"
            layer.reset_parameters()
    return module


def init_states(A_log: Tensor) -> None:
    """Start the logarithms of a scan's decays at those of 1, 2, ..., as Mamba does: (..., N)."""
    states = torch.arange(1, A_log.shape[-1] + 1, dtype=torch.float32, device=A_log.device)
    with torch.no_grad():
        A_log.copy_(states.log().expand_as(A_log))


def channel_affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x * scale + bias` of every channel, as the depth-wise 1x1 convolution that operator counters see."""
    y = conv2d(x.permute(0, 3, 1, 2), scale[:, None, None, None], bias, (1, 1), (0, 0), x.shape[-1], (1, 1))
    return y.permute(0, 2, 3, 1)

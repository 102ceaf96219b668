"""The layers and helpers that blocks are made of, in plain PyTorch: what an ejected file has in their place.

Each definition stands for the one of its name in the package, without its ways around torch's slower operators. Maps
are x_BHWC throughout; a convolution, as torch has it, takes and gives x_BCHW.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.kernels.ssd import ssd

M = TypeVar("M", bound=nn.Module)
ConvInit = Literal["fan_out", "trunc_normal", "uniform"]
"""How a convolution starts: normal of variance 2 / fan_out, truncated normal of deviation 0.02, or as torch does."""
TAKE_NCHW = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
"""Classes of torch that take channels in the second axis."""


class OpError(ValueError):
    """A map that a module cannot take."""

    def __init__(self, message: str, **facts: str) -> None:
        super().__init__(message)


class Linear(nn.Linear):
    """A linear layer on the last axis; weights start as a normal of deviation 0.02 cut at 2, or as `init` says,
    biases at 0."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, init: ConvInit = "trunc_normal"
    ) -> None:
        self.init = init
        super().__init__(in_features, out_features, bias)

    def reset_parameters(self) -> None:
        if self.init == "uniform":
            super().reset_parameters()
            return
        if self.init == "fan_out":
            nn.init.normal_(self.weight, std=math.sqrt(2.0 / self.out_features))
        else:
            nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


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


class DWConv(Conv2d):
    """A depth-wise convolution of x_BCHW: one filter a channel, same size."""

    def __init__(
        self, dim: int, kernel_size: int | tuple[int, int], *, bias: bool = True, init: ConvInit = "fan_out"
    ) -> None:
        super().__init__(dim, dim, kernel_size, groups=dim, bias=bias, init=init)


class GroupNorm2d(nn.GroupNorm):
    """torch's GroupNorm of x_BCHW, with or without a bias."""

    def __init__(self, num_groups: int, dim: int, eps: float, bias: bool) -> None:
        super().__init__(num_groups, dim, eps=eps)
        if not bias:
            self.register_parameter("bias", None)


def default_init(module: M) -> M:
    """`module`, all linear layers and convolutions in it started as torch does."""
    for layer in module.modules():
        if isinstance(layer, Linear | Conv2d):
            (nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d).reset_parameters(layer)  # type: ignore[arg-type]
    return module


def layout_of(leaf: nn.Module) -> str:
    """Whether a module takes channels in the second axis or the last one."""
    return "NCHW" if isinstance(leaf, TAKE_NCHW) else "NHWC"


def on_nchw(leaf: Callable[[Tensor], Tensor], x_BHWC: Tensor) -> Tensor:
    """What a leaf on x_BCHW makes of a map, as y_BHWC."""
    return leaf(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def on_map(leaf: Callable[[Tensor], Tensor], x_BHWC: Tensor, layout: str) -> Tensor:
    """What a leaf that takes this layout makes of a map, as y_BHWC."""
    return on_nchw(leaf, x_BHWC) if layout == "NCHW" else leaf(x_BHWC)


class Maps(nn.Sequential):
    """Modules in a row on x_BHWC: each gets the map in the layout that it takes."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = on_map(module, x, layout_of(module))
        return x


def residual_dwconv(conv: nn.Module, x_BHWC: Tensor) -> Tensor:
    """`x + conv(x)` as y_BHWC."""
    return x_BHWC + on_nchw(conv, x_BHWC)


def channel_affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x * scale + bias` of every channel."""
    return x * scale + bias


def bias_of(linear: nn.Linear, x: Tensor) -> Tensor:
    """The bias of a linear layer."""
    return linear.bias


def attention(
    q_BNLD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Softmax attention; `mask` is added to the logits, or says which may be seen. `scale`: of the products; None: as
    usual."""
    return F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask, scale=scale)


def same_size(x: Tensor, size: tuple[int, int], what: str) -> None:
    """Raise `OpError` if a map is of another size than the one that parameters were made for."""
    if tuple(x.shape[1:3]) != tuple(size):
        raise OpError(f"{what} was built for maps of {size[0]}x{size[1]}, not {x.shape[1]}x{x.shape[2]}")


class Computed(nn.Module):
    """A module with buffers that follow from its options, which no file of weights holds."""

    def computed(self, device: torch.device | None) -> dict[str, Tensor]:
        """Each buffer by its name."""
        raise NotImplementedError

    def hold_computed(self) -> None:
        """Register the buffers."""
        for name, value in self.computed(None).items():
            self.register_buffer(name, value, persistent=False)

    def held(self, name: str, like: Tensor) -> Tensor:
        """The buffer `name`."""
        return self.get_buffer(name)


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


class Branch(nn.Module):
    """`post_act(x + drop_path(scale * op(norm(x))))`. `scale`: where learnt scales start, one on the branch and one on
    x, which has a bias too. `skip`: whether x is added."""

    def __init__(
        self,
        op: nn.Module,
        norm: nn.Module | None,
        dim: int,
        drop_path: float,
        scale: tuple[float | None, float | None] = (None, None),
        post_act: nn.Module | None = None,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.norm = norm if norm is not None else nn.Identity()
        self.op = op
        branch_scale, skip_scale = scale
        self.scale = nn.Parameter(torch.full((dim,), branch_scale)) if branch_scale is not None else None
        self.skip_scale = nn.Parameter(torch.full((dim,), skip_scale)) if skip_scale is not None else None
        self.skip_bias = nn.Parameter(torch.zeros(dim)) if skip_scale is not None else None
        self.drop_path = DropPath(drop_path)
        self.post_act = post_act if post_act is not None else nn.Identity()
        self.skip = skip

    def forward(self, x: Tensor, fed: Tensor | None = None) -> Tensor:
        """`fed`: what an aggregator gives in place of the branch's own input, behind the norm."""
        y = on_map(self.norm, x if fed is None else fed, layout_of(self.norm))
        y = on_map(self.op, y, layout_of(self.op))
        if self.scale is not None:
            y = y * self.scale
        if self.skip_scale is not None and self.skip_bias is not None:
            x = x * self.skip_scale + self.skip_bias
        return self.post_act(x + self.drop_path(y) if self.skip else y)


class Parts(nn.Module):
    """Modules by name."""

    def __init__(self, /, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class Stage(Parts):
    """The modules of a stage, by name."""


def bi_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """`ssd` in two directions: the second half of the heads runs from the last position to the first."""
    (x, x2), (dt, dt2), (B, B2), (C, C2) = (t.chunk(2, dim=2) for t in (x, dt, B, C))
    (A, A2), (D, D2) = A.chunk(2), D.chunk(2)
    return torch.cat([ssd(x, dt, A, B, C, D), ssd(x2, dt2, A2, B2, C2, D2, reverse=True)], dim=2)


def image_map(x_BCHW: Tensor, channels: int, least: int = 1) -> Tensor:
    """The image as a map, x_BHWC."""
    if x_BCHW.ndim != 4 or x_BCHW.shape[1] != channels or min(x_BCHW.shape[2:]) < least:
        wants = f"images (B, {channels}, H, W) of {least}x{least} or larger"
        raise OpError(f"the network wants {wants}, got {tuple(x_BCHW.shape)}")
    return x_BCHW.permute(0, 2, 3, 1)

"""The layers and helpers that blocks are made of, in plain PyTorch: what an ejected file has in their place.

Each definition stands for the one of its name in the package, without its ways around torch's slower operators. Maps
are x_BHWC throughout; a convolution, as torch has it, takes and gives x_BCHW.
"""

from __future__ import annotations

from operator import ge

import torch
from torch import Tensor, nn

from blockforge.blocks.layers import DropPath
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.kernels.ssd import ssd

TAKE_NCHW = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
"""Classes of torch that take channels in the second axis."""


class OpError(ValueError):
    """A map that a module cannot take."""

    def __init__(self, message: str, **facts: str) -> None:
        super().__init__(message)


class Maps(nn.Sequential):
    """Modules in a row on x_BHWC: each gets the map in the layout that it takes."""

    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = on_map(module, x, layout_of(module))
        return x


def channel_affine(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x * scale + bias` of every channel."""
    return x * scale + bias


class Computed(nn.Module):
    """A module with buffers that follow from its options, which no file of weights holds."""

    def hold_computed(self) -> None:
        for name, value in self.computed(None).items():  # type: ignore[operator, union-attr]
            self.register_buffer(name, value, persistent=False)

    def held(self, name: str, like: Tensor) -> Tensor:
        return self.get_buffer(name)


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


def image_map(x_BCHW: Tensor, channels: int, least: tuple[int, int] = (1, 1)) -> Tensor:
    """The image as a map, x_BHWC."""
    if x_BCHW.ndim != 4 or x_BCHW.shape[1] != channels or not all(map(ge, x_BCHW.shape[2:], least)):
        wants = f"images (B, {channels}, H, W) of {least[0]}x{least[1]} or larger"
        raise OpError(f"the network wants {wants}, got {tuple(x_BCHW.shape)}")
    return x_BCHW.permute(0, 2, 3, 1)

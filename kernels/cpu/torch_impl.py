"""Every detour of this package as torch's own words: what it computes, and what may stand in its place."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def untouched(leaf: nn.Module, made: type) -> bool:
    """Whether a leaf may be computed around: never, it is called."""
    return False


def overwrites(made: type) -> bool:
    """Whether modules of this class can work in their input's memory: never, they are called."""
    return False


def activate(act: nn.Module, x: Tensor, own: bool) -> Tensor:
    """`act(x)`."""
    y: Tensor = act(x)
    return y


def conv2d(
    x_BCHW: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    groups: int,
    kernel_size: tuple[int, int],
) -> Tensor:
    """A convolution of a channels-last map."""
    return F.conv2d(x_BCHW, weight, bias, stride, padding, 1, groups)


def add_dwconv(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """`x + conv(x)`."""
    y: Tensor = x_BCHW + conv(x_BCHW)
    return y

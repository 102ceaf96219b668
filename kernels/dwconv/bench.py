"""Sizes at which `blockforge bench kernels` times the depth-wise convolution: ConvNeXt-T and SMT-T, 224 px."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.dwconv import dwconv


def cases() -> list[Case]:
    """The kernels of ConvNeXt, those of one head of SMT's mixed convolution and of its feed-forward network."""
    sizes = [
        ("ConvNeXt-T, stage 1", (1, 56, 56, 96), (7, 7)),
        ("ConvNeXt-T, stage 3", (1, 14, 14, 384), (7, 7)),
        ("SMT-T, stage 1, head 4", (1, 56, 56, 16), (9, 9)),
        ("SMT-T, stage 2, FFN", (1, 28, 28, 512), (3, 3)),
        ("ConvNeXt-T, stage 1", (8, 56, 56, 96), (7, 7)),
    ]
    return [
        Case(
            f"{where}: batch {shape[0]}, {sides[0]}x{sides[1]}, {shape[-1]} channels",
            partial(_operands, shape, sides),
            dwconv,
            _by_conv2d,
            "F.conv2d",
        )
        for where, shape, sides in sizes
    ]


def _by_conv2d(x_BHWC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    maps = F.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, bias, padding="same", groups=weight.shape[0])
    return maps.permute(0, 2, 3, 1)


def _operands(shape: tuple[int, ...], sides: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, channels = torch.randn(shape, generator=generator), shape[-1]
    weight = torch.randn(channels, 1, *sides, generator=generator) * (sides[0] * sides[1]) ** -0.5
    return x.to(device), weight.to(device), torch.randn(channels, generator=generator).to(device)

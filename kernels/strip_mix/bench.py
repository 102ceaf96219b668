"""Sizes at which `blockforge bench kernels` times strip mixing: Strip-MLP-T, 224 px."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.strip_mix import strip_mix

_STRIP, _PATCH = 3, 2


def cases() -> list[Case]:
    """All stages for one image, and the first and third for eight."""
    sizes = [(1, 1, 56, 40), (2, 1, 28, 80), (3, 1, 14, 160), (4, 1, 7, 320), (1, 8, 56, 40), (3, 8, 14, 160)]
    return [
        Case(
            f"stage {stage} of Strip-MLP-T: batch {batch}, {side} x {side}, {width} channels",
            partial(_operands, batch, side, width),
            _joined,
            _plain,
            "copy, convolution, copy, cat",
        )
        for stage, batch, side, width in sizes
    ]


def _joined(x_BHWC: Tensor, pos_HWC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return strip_mix(x_BHWC, pos_HWC, weight, bias, axis="rows", beside_BHWC=x_BHWC)


def _plain(x_BHWC: Tensor, pos_HWC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A copy of the map before the convolution, one of its result, and a third to join them."""
    batch, height, width, _ = x_BHWC.shape
    groups = weight.shape[0] // width
    lines = (x_BHWC + pos_HWC).view(batch, height, width, _PATCH, groups).permute(0, 3, 1, 4, 2)
    lines = lines.reshape(batch, _PATCH, height, groups * width).permute(0, 3, 1, 2)
    y = F.conv2d(lines, weight, bias, padding=(0, _STRIP // 2), groups=groups)
    y_BHWC = y.view(batch, groups, width, _PATCH, height).permute(0, 4, 2, 3, 1).reshape(x_BHWC.shape)
    return torch.cat((y_BHWC, x_BHWC), dim=3)


def _operands(batch: int, side: int, width: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    groups = width // _PATCH
    shapes = (batch, side, side, width), (side, side, width), (groups * side, side, 1, _STRIP), (groups * side,)
    x, pos, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    return tuple(t.to(device) for t in (x, pos * 0.02, weight / (side * _STRIP) ** 0.5, bias))

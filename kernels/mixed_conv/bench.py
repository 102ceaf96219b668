"""Sizes at which `blockforge bench kernels` times multi-head mixed convolution: SMT, 224 px."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.benchmark import Case
from blockforge.kernels.mixed_conv import mixed_conv

_SIDES = (3, 5, 7, 9)


def cases() -> list[Case]:
    """Stages 1 and 3 of SMT-T to SMT-B, one image and eight, and stage 1 of SMT-L."""
    sizes = [("1 of SMT-T", 1, 56, 64), ("3 of SMT-T", 1, 14, 256), ("1 of SMT-L", 1, 56, 96)]
    sizes += [("1 of SMT-T", 8, 56, 64), ("3 of SMT-T", 8, 14, 256)]
    return [
        Case(
            f"stage {where}: batch {batch}, {side} x {side}, {dim} channels, 4 heads",
            partial(_operands, batch, side, dim),
            _mixed,
            _stacked,
            "one convolution each, and a stack",
        )
        for where, batch, side, dim in sizes
    ]


def _mixed(x_BHWC: Tensor, *others: Tensor) -> Tensor:
    heads = len(_SIDES)
    return mixed_conv(x_BHWC, others[:heads], others[heads : 2 * heads], (others[-2], others[-1]))


def _stacked(x_BHWC: Tensor, *others: Tensor) -> Tensor:
    """As the released code, on the same channels-last map."""
    x, heads = x_BHWC.permute(0, 3, 1, 2), len(_SIDES)
    given = zip(x.chunk(heads, 1), others[:heads], others[heads:-2], strict=True)
    scales = [F.conv2d(x, w, b, padding=w.shape[-1] // 2, groups=len(w)) for x, w, b in given]
    mixed = F.conv2d(torch.stack(scales, dim=2).flatten(1, 2), others[-2], others[-1], groups=len(others[0]))
    return mixed.permute(0, 2, 3, 1)


def _operands(batch: int, side: int, dim: int, device: torch.device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    heads, width = len(_SIDES), dim // len(_SIDES)
    shapes = [(batch, side, side, dim), *((width, 1, k, k) for k in _SIDES), *[(width,)] * heads]
    shapes += [(2 * dim, heads, 1, 1), (2 * dim,)]
    return tuple(torch.randn(shape, generator=generator).to(device) for shape in shapes)

"""Operands of `strip_mix`, in the order of `duality.results`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blockforge.kernels.strip_mix import strip_mix


def strip_operands(
    height: int, width: int, groups: int, per_group: int, strip: int, *, columns: bool = False, beside: bool = True
) -> tuple[Tensor | None, ...]:
    """x, pos, weight, bias and a map beside them, for two images, in float64."""
    generator = torch.Generator().manual_seed(height * width)
    length, size = height if columns else width, (height, width, groups * per_group)
    shapes = (2, *size), size, (groups * length, length, 1, strip), (groups * length,), (2, *size)
    operands = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return (*operands[:4], operands[4] if beside else None)


def mixed(
    x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, beside: Tensor | None, *, axis: Any, **options: Any
) -> Tensor:
    return strip_mix(x, pos, weight, bias, axis=axis, beside_BHWC=beside, **options)

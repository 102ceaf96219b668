"""Operands of `channel_attention`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from duality import Operands
from torch import Tensor

from blockforge.kernels.channel_attention import channel_attention


def make(length: int, reduced: int, dim: int, batch: int = 2) -> Operands:
    """x, q, k and v in float64."""
    generator = torch.Generator().manual_seed(length + dim)
    sizes = (length, reduced, reduced, length)
    return tuple(torch.randn(batch, size, dim, generator=generator, dtype=torch.float64) for size in sizes)


def on(backend: str | None, groups: int = 1) -> Callable[..., Tensor]:
    return partial(channel_attention, groups=groups, backend=backend)


def turned(operands: Operands) -> Operands:
    """The same numbers, positions side by side in memory."""
    return tuple(t if t is None else t.detach().mT.contiguous().mT.requires_grad_() for t in operands)

"""Operands of `mixed_conv`, all in a row: the map, the kernels, their biases, the mixing's weight and bias."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from duality import Operands
from torch import Tensor

from blockforge.kernels.mixed_conv import mixed_conv


def make(size: tuple[int, int, int], width: int, sides: tuple[int, ...] = (3, 5), expand: int | None = 2) -> Operands:
    """In float64. `size`: batch, height and width of the map. `width`: channels of a head. `expand` None: no mixing."""
    torch.manual_seed(sum(size) + width)
    heads, hidden = len(sides), len(sides) * width * (expand or 0)
    mix = (torch.randn(hidden, heads, 1, 1), torch.randn(hidden)) if expand else ()
    kernels, biases = [torch.randn(width, 1, k, k) / k for k in sides], torch.randn(heads, width).unbind()
    given = [t.double() for t in (torch.randn(*size, heads * width), *kernels, *biases, *mix)]
    return (*given, *(() if mix else (None, None)))


def on(backend: str | None) -> Callable[..., Tensor]:
    """The operator on such operands, by one backend."""
    return partial(_run, backend)


def _run(backend: str | None, x_BHWC: Tensor, *others: Tensor | None) -> Tensor:
    *tensors, weight, bias = others
    given = [t for t in tensors if t is not None]
    heads = len(given) // 2
    mix = None if weight is None or bias is None else (weight, bias)
    return mixed_conv(x_BHWC, given[:heads], given[heads:], mix, backend=backend)

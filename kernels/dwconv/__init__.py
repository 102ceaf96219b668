"""A depth-wise convolution of a channels-last map: one filter a channel, same size.

Letters: B batch, H height, W width, C channels, h and w sides of the kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere, needs_onednn
from blockforge.kernels.observers import is_plain

__all__ = ["OPERATOR", "dwconv"]

OPERATOR = Operator("dwconv", onednn=needs_onednn, torch=anywhere, reference=anywhere)


def dwconv(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """y[b, i, j, c] = bias[c] + sum over p, q of weight[c, 0, p, q] x[b, i + p - h // 2, j + q - w // 2, c], where x
    is 0 beyond the map.

    Args:
        x_BHWC: the map, any H and W.
        weight: (C, 1, h, w), both sides odd.
        bias: (C,), or None.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns: y_BHWC, contiguous. Differentiable, twice.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    """
    if not torch.jit.is_tracing():  # which would take sizes for variables
        _check(x_BHWC, weight, bias)
    y: Tensor = OPERATOR.pick(x_BHWC, backend, plain=is_plain(x_BHWC, weight, bias))(x_BHWC, weight, bias)
    return y


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.ndim != 4:
        raise ValueError(f"x must be (batch, height, width, channels), not {tuple(x.shape)}")
    channels, sides = x.shape[-1], tuple(weight.shape[2:])
    if weight.shape[:2] != (channels, 1) or len(sides) != 2 or any(side % 2 == 0 for side in sides):
        raise ValueError(f"weight must be ({channels}, 1, h, w), h and w odd, not {tuple(weight.shape)}")
    if bias is not None and bias.shape != (channels,):
        raise ValueError(f"bias must be ({channels},), not {tuple(bias.shape)}")

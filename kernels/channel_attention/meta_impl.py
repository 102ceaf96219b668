"""Channel attention on the meta device as a compiled backend runs it: shapes, and what backward keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from blockforge.kernels.channel_attention.derivative import backward, save


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
        return x.new_empty(*x.shape[:2], 3 * x.shape[2], dtype=torch.promote_types(x.dtype, v.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        save(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return backward(ctx, *grads)


def channel_attention(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> Tensor:
    """See the package's `channel_attention`."""
    y: Tensor = _Attention.apply(x_BLC, q_BPC, k_BPC, v_BLC, groups)  # type: ignore[no-untyped-call]
    return y

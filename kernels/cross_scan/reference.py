"""The scan of a map as its definition says: each direction unrolled to a sequence, and one step after another."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.cross_scan.directions import Direction, Order
from blockforge.kernels.selective_scan import reference


def cross_scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    directions: tuple[Direction, ...],
    window: int | None = None,
) -> Tensor:
    """See the package's `cross_scan`. Works in float64 where an input is."""
    height, width = x.shape[1:3]
    dtype = torch.promote_types(x.dtype, torch.promote_types(A.dtype, torch.float32))
    total = x.new_zeros(x.shape, dtype=dtype).flatten(1, 2)
    for k, direction in enumerate(directions):
        visited = Order(height, width, direction, window or 0).on(x.device).long()
        u, dt_k, B_k, C_k = (t.flatten(1, 2)[:, visited].to(dtype) for t in (x, *(t[..., k, :] for t in (dt, B, C))))
        delta = dt_k @ dt_weight[k].to(dtype).mT
        y = reference.selective_scan(
            u.mT,
            delta.mT,
            A[k],
            B_k.mT.unsqueeze(1),
            C_k.mT.unsqueeze(1),
            None if D is None else D[k],
            delta_bias=None if dt_bias is None else dt_bias[k],
            delta_softplus=True,
        )
        total = total.index_add(1, visited, y.mT)
    return total.unflatten(1, (height, width)).to(x.dtype)

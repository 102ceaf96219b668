"""The selective scan as its definition says: one step after another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """See the package's `selective_scan`. Works in float64 where an input is;
    differentiable as often as one likes."""
    dtype = torch.promote_types(u.dtype, torch.promote_types(A.dtype, torch.float32))
    x_BDL, delta = u.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    groups, dim, length = B.shape[1], u.shape[1], u.shape[2]
    B_BDNL, C_BDNL = (t.to(dtype).repeat_interleave(dim // groups, dim=1) for t in (B, C))

    state_BDN = x_BDL.new_zeros(u.shape[0], dim, A.shape[1])
    outputs: dict[int, Tensor] = {}
    for t in reversed(range(length)) if reverse else range(length):
        step = delta[:, :, t, None]
        decay = torch.exp(step * A)
        state_BDN = decay * state_BDN + step * B_BDNL[..., t] * x_BDL[:, :, t, None]
        outputs[t] = (state_BDN * C_BDNL[..., t]).sum(-1)
    y = torch.stack([outputs[t] for t in range(length)], dim=-1)
    if D is not None:
        y = y + D[:, None] * x_BDL
    return y.to(u.dtype)

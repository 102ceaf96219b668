"""State space duality as its definition says: one step after another."""

from __future__ import annotations

import torch
from torch import Tensor


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """See the package's `ssd`."""
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, dt = x_BLHP.to(dtype), dt_BLH.to(dtype)
    batch, length, heads, width = x.shape
    per_group = heads // B_BLGN.shape[2]
    B_BLHN, C_BLHN = (t.to(dtype).repeat_interleave(per_group, dim=2) for t in (B_BLGN, C_BLGN))
    state_BHNP = x.new_zeros(batch, heads, B_BLHN.shape[-1], width)
    outputs: dict[int, Tensor] = {}
    for t in reversed(range(length)) if reverse else range(length):
        decay = torch.exp(dt[:, t] * A_H)[..., None, None]
        added = (dt[:, t, :, None] * B_BLHN[:, t])[..., None] * x[:, t, :, None]
        state_BHNP = decay * state_BHNP + added
        outputs[t] = (C_BLHN[:, t, :, :, None] * state_BHNP).sum(-2)
    y = torch.stack([outputs[t] for t in range(length)], dim=1)
    if D_H is not None:
        y = y + D_H[:, None] * x
    return y.to(x_BLHP.dtype)

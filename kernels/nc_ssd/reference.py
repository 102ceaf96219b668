"""Non-causal state space duality as its definition says: a state a head, each head on its own."""

from __future__ import annotations

import torch
from torch import Tensor


def nc_ssd(x_BLHP: Tensor, m_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor, D_H: Tensor | None = None) -> Tensor:
    """See the package's `nc_ssd`."""
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    x, B, C = (t.to(dtype) for t in (x_BLHP, B_BLGN, C_BLGN))
    outputs = []
    for head in range(x.shape[2]):
        x_BLP, group = x[:, :, head], head % B.shape[2]
        weight_BL1 = 1.0 if m_BLH is None else m_BLH[:, :, head, None].to(dtype)
        state_BNP = torch.einsum("bln,blp->bnp", B[:, :, group], weight_BL1 * x_BLP)
        y_BLP = torch.einsum("bln,bnp->blp", C[:, :, group], state_BNP)
        outputs.append(y_BLP if D_H is None else y_BLP + D_H[head] * x_BLP)
    return torch.stack(outputs, dim=2).to(x_BLHP.dtype)

"""Non-causal state space duality as two matrix products, all heads of a group side by side.

With one group, as in every published model, nothing is copied but the weighted tokens.

Letters: B batch, L length, G groups, R heads of a group, P width of a head, N states, S = R * P.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.observers import is_transformed


def nc_ssd(x_BLHP: Tensor, m_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor, D_H: Tensor | None = None) -> Tensor:
    """See the package's `nc_ssd`. Differentiable; standard operators, which compilers and counters see."""
    groups, width = B_BLGN.shape[2], x_BLHP.shape[3]
    weighted = x_BLHP if m_BLH is None else x_BLHP * m_BLH.unsqueeze(-1)
    weighted_BGLS = weighted.unflatten(2, (-1, groups)).permute(0, 3, 1, 2, 4).flatten(3)
    state_BGNS = B_BLGN.permute(0, 2, 3, 1) @ weighted_BGLS
    del weighted, weighted_BGLS
    y_BGLS = C_BLGN.transpose(1, 2) @ state_BGNS
    y_BLHP = y_BGLS.unflatten(3, (-1, width)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    if D_H is None:
        return y_BLHP
    # In place only where no transform can have given x or D a hidden axis that y lacks.
    return (torch.addcmul if is_transformed() else Tensor.addcmul_)(y_BLHP, x_BLHP, D_H[:, None])

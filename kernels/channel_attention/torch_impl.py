"""Channel attention as two products a group, in standard operators.

Letters: B batch, L positions of the map, P positions of queries and keys, C channels, N channels of a group,
J = 3 C.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PARTS = 3
"""The map, what was found, and the values."""


def channel_attention(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> Tensor:
    """See the package's `channel_attention`. Differentiable; standard operators, which compilers and counters see.

    In eager inference the maps are joined in one pass: every third channel of each, from channel 0, from 1 and
    from 2. The derivative of that adds up maps of zeros; so where there is to be one, or a graph is captured, the
    maps are joined first and then shuffled.
    """
    attended = _attended(q_BPC, k_BPC, v_BLC, groups)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat([x_BLC, *attended, v_BLC], dim=-1).unflatten(-1, (-1, _PARTS)).transpose(-1, -2).flatten(-2)
    maps, dim = [x_BLC, torch.cat(attended, dim=-1), v_BLC], x_BLC.shape[-1]
    del attended
    return torch.cat([t[..., (j - n * dim) % _PARTS :: _PARTS] for j in range(_PARTS) for n, t in enumerate(maps)], -1)


def _attended(q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> list[Tensor]:
    """What each group of channels finds, maps of N channels."""
    scaled_BPC, attended = q_BPC * q_BPC.shape[1] ** -0.5, []
    for q_BPN, k_BPN, v_BLN in zip(*(t.chunk(groups, dim=-1) for t in (scaled_BPC, k_BPC, v_BLC)), strict=True):
        weights_BNN = torch.softmax(q_BPN.mT @ k_BPN, dim=-1)
        attended.append(v_BLN @ weights_BNN.mT)
    return attended

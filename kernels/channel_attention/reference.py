"""Channel attention as its definition says: a group on its own, then the channels one by one."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_attention(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> Tensor:
    """See the package's `channel_attention`."""
    given = torch.promote_types(x_BLC.dtype, v_BLC.dtype)
    dtype = torch.promote_types(given, torch.float32)
    x, q, k, v = (t.to(dtype) for t in (x_BLC, q_BPC, k_BPC, v_BLC))
    dim, attended = x.shape[2], []
    for group in range(groups):
        own = slice(group * dim // groups, (group + 1) * dim // groups)
        scores = torch.einsum("bpi,bpj->bij", q[..., own], k[..., own]) / q.shape[1] ** 0.5
        attended.append(torch.einsum("bij,blj->bli", scores.softmax(-1), v[..., own]))
    joined = torch.cat([x, *attended, v], dim=-1)
    channels = [joined[..., 3 * i + j] for j in range(3) for i in range(dim)]
    return torch.stack(channels, dim=-1).to(given)

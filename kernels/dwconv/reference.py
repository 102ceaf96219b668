"""A depth-wise convolution as its definition says."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dwconv(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See the package's `dwconv`."""
    height, width = x_BHWC.shape[1:3]
    h, w = weight.shape[2:]
    padded = F.pad(x_BHWC, (0, 0, w // 2, w // 2, h // 2, h // 2))
    y = torch.zeros_like(x_BHWC) if bias is None else bias.expand(x_BHWC.shape)
    for p in range(h):
        for q in range(w):
            y = y + padded[:, p : p + height, q : q + width] * weight[:, 0, p, q]
    return y

"""Group strip mixing as its definition says: each group and each neighbouring line on its own."""

from __future__ import annotations

import torch
from torch import Tensor


def strip_mix(
    x_BHWC: Tensor,
    pos_HWC: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    axis: str,
    beside_BHWC: Tensor | None = None,
    beside_first: bool = False,
) -> Tensor:
    """See the package's `strip_mix`."""
    dtype = torch.promote_types(x_BHWC.dtype, torch.float32)
    x, weight, bias = x_BHWC.to(dtype) + pos_HWC.to(dtype), weight.to(dtype), bias.to(dtype)
    if axis == "columns":
        y = _mixed(x.transpose(1, 2), weight, bias).transpose(1, 2)
    else:
        y = _mixed(x, weight, bias)
    y = y.to(x_BHWC.dtype)
    if beside_BHWC is None:
        return y
    return torch.cat((beside_BHWC, y) if beside_first else (y, beside_BHWC), dim=-1)


def _mixed(x_BSLC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Lines S of L positions."""
    lines, length, strip = x_BSLC.shape[1], x_BSLC.shape[2], weight.shape[3]
    groups = weight.shape[0] // length
    y = torch.zeros_like(x_BSLC)
    for group in range(groups):
        of_group = slice(group * length, (group + 1) * length)
        y[..., group::groups] += bias[of_group, None]
        for line in range(lines):
            for k in range(strip):
                if 0 <= (source := line + k - strip // 2) < lines:
                    products = weight[of_group, :, 0, k] @ x_BSLC[:, source, :, group::groups]
                    y[:, line, :, group::groups] += products
    return y

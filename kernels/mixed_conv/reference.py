"""Multi-head mixed convolution as its definition says: tap by tap, each head on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def mixed_conv(
    x_BHWC: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], mix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """See the package's `mixed_conv`."""
    dtype = torch.promote_types(x_BHWC.dtype, torch.float32)
    heads = x_BHWC.to(dtype).chunk(len(weights), dim=-1)
    convolved = [_conv(x, w.to(dtype), b.to(dtype)) for x, w, b in zip(heads, weights, biases, strict=True)]
    groups = torch.stack(convolved, dim=-1)  # (B, H, W, channel of a head, head)
    if mix is None:
        return groups.flatten(-2).to(x_BHWC.dtype)
    weight, bias = (t.to(dtype).unflatten(0, (groups.shape[-2], -1)) for t in mix)
    mixed = torch.einsum("bhwci,coi->bhwco", groups, weight[..., 0, 0]) + bias
    return mixed.flatten(-2).to(x_BHWC.dtype)


def _conv(x_BHWC: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    side, (height, width) = weight.shape[-1], x_BHWC.shape[1:3]
    padded = F.pad(x_BHWC, (0, 0) + (side // 2,) * 4)
    y = bias.expand(x_BHWC.shape)
    for i in range(side):
        for j in range(side):
            y = y + weight[:, 0, i, j] * padded[:, i : i + height, j : j + width]
    return y

"""A depth-wise convolution by torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dwconv(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See the package's `dwconv`."""
    h, w = weight.shape[2:]
    y = F.conv2d(x_BHWC.permute(0, 3, 1, 2), weight, bias, padding=(h // 2, w // 2), groups=weight.shape[0])
    return y.permute(0, 2, 3, 1).contiguous()

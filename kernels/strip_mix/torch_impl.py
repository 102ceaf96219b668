"""Group strip mixing as a grouped convolution: the positions of a line are channels, the lines and the channels that
share weights are sides.

Letters: B batch, S lines, L positions of a line, P channels of a group, G groups.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.cpu.convolutions import dilation_of_1x1


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
    """See the package's `strip_mix`. Differentiable; standard operators, which compilers and counters see."""
    columns = axis == "columns"
    y_BHWPG = _mixed(_lines(x_BHWC + pos_HWC, columns, weight), weight, bias)
    y_BHWPG = y_BHWPG.transpose(1, 2) if columns else y_BHWPG
    if beside_BHWC is None:
        return y_BHWPG.flatten(3)
    beside_BHWPG = beside_BHWC.unflatten(3, y_BHWPG.shape[3:])
    parts = (beside_BHWPG, y_BHWPG) if beside_first else (y_BHWPG, beside_BHWPG)
    return torch.cat(parts, dim=3).flatten(3)


def _lines(x_BHWC: Tensor, columns: bool, weight: Tensor) -> Tensor:
    """x_BSLC in the convolution's layout, (B, P, S, G * L)."""
    x_BSLC = x_BHWC.transpose(1, 2) if columns else x_BHWC
    return x_BSLC.unflatten(3, (-1, weight.shape[0] // weight.shape[1])).permute(0, 3, 1, 4, 2).flatten(3)


def _mixed(x_BPST: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """T = G * L -> y_BSLPG."""
    padding, groups = (0, weight.shape[3] // 2), weight.shape[0] // weight.shape[1]
    dilation = dilation_of_1x1(weight) if weight.shape[3] == 1 else 1
    y_BTPS = F.conv2d(x_BPST.permute(0, 3, 1, 2), weight, bias, 1, padding, dilation, groups)
    return y_BTPS.unflatten(1, (groups, -1)).permute(0, 4, 2, 3, 1)

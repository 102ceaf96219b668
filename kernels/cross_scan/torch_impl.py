"""The scan of a map with standard operations: one direction at a time. A transposed copy of the map serves
all directions along columns; those along rows read the map itself. An exported graph holds another form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels.cross_scan import captured
from blockforge.kernels.cross_scan.directions import Direction, lines, rolled, unrolled
from blockforge.kernels.selective_scan import torch_impl


def cross_scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    dt_weight: Tensor | None,
    A: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    directions: tuple[Direction, ...],
    window: int | None = None,
) -> Tensor:
    """See the package's `cross_scan`."""
    if torch.compiler.is_exporting():
        return captured.cross_scan(x, dt, B, C, dt_weight, A, D, dt_bias, directions, window)
    height, width = x.shape[1:3]
    total: Tensor | None = None
    for columns, numbers in lines(directions):
        u_BLD = unrolled(x, columns, window or 0)
        y: Tensor | None = None
        for k in numbers:
            dt_BLR, B_BLN, C_BLN = (unrolled(t[..., k, :], columns, window or 0) for t in (dt, B, C))
            y_BDL = torch_impl.selective_scan(
                u_BLD.mT,
                (dt_BLR if dt_weight is None else F.linear(dt_BLR, dt_weight[k].to(dt_BLR.dtype))).mT,
                A[k],
                B_BLN.mT.unsqueeze(1),
                C_BLN.mT.unsqueeze(1),
                None if D is None else D[k],
                delta_bias=None if dt_bias is None else dt_bias[k],
                delta_softplus=True,
                reverse=directions[k].endswith("back"),
            )
            y = y_BDL.mT if y is None else y + y_BDL.mT
        assert y is not None
        y = rolled(y, height, width, columns, window or 0)
        total = y if total is None else total + y
    assert total is not None
    return total


def workspace(
    positions: int, dim: int, d_state: int, rank: int, directions: tuple[Direction, ...], window: int | None
) -> int:
    """Most elements alive at once without gradients for one map, its result included."""
    map_, scan = positions * dim, torch_impl.workspace(positions, dim, d_state)
    most, seen = 0, 0
    for columns, numbers in lines(directions):
        copied = columns or window is not None
        unrolled_operands = positions * (rank + 2 * d_state) * copied
        first = map_ * (len(numbers) > 1) + map_ + unrolled_operands + scan
        most = max(most, seen + map_ * copied + max(first, unrolled_operands + 3 * map_))
        seen = map_
    return most

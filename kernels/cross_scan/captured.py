"""The scan of a map in exported graphs and for second derivatives: all directions are one scan, as so many groups of
channels."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.cross_scan.directions import Direction, rolled, unrolled
from blockforge.kernels.selective_scan.captured import selective_scan


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
    (height, width), sizes = x.shape[1:3], [x.shape[-1], dt.shape[-1], B.shape[-1], C.shape[-1]]
    sequences = []
    for k, direction in enumerate(directions):
        read = torch.cat([x, dt[..., k, :], B[..., k, :], C[..., k, :]], dim=-1)
        read = unrolled(read, direction.startswith("columns"), window or 0)
        sequences.append(read.flip(1) if direction.endswith("back") else read)
    u_BLKD, dt_BLKR, B_BLKN, C_BLKN = torch.stack(sequences, dim=2).split(sizes, dim=-1)
    delta_BLKD = dt_BLKR
    if dt_weight is not None:
        delta_BLKD = (dt_BLKR.transpose(1, 2) @ dt_weight.to(dt_BLKR.dtype).mT).transpose(1, 2)
    y_BDL = selective_scan(
        u_BLKD.flatten(2).mT,
        delta_BLKD.flatten(2).mT,
        A.flatten(0, 1),
        B_BLKN.permute(0, 2, 3, 1),
        C_BLKN.permute(0, 2, 3, 1),
        None if D is None else D.flatten(),
        delta_bias=None if dt_bias is None else dt_bias.flatten(),
        delta_softplus=True,
    )
    total: Tensor | None = None
    for y, direction in zip(y_BDL.mT.chunk(len(directions), dim=-1), directions, strict=True):
        y = y.flip(1) if direction.endswith("back") else y
        y = rolled(y, height, width, direction.startswith("columns"), window or 0)
        total = y if total is None else total + y
    assert total is not None
    return total.to(x.dtype)

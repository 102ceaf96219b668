"""Selective scans as a captured graph holds them: a few dozen operators, whatever the length of the sequence.

The sequence is cut into chunks, and the chunks' ends again, until few are left. Within a chunk every position
reads every earlier one, each through its own decay: exp(log[s+1] + ... + log[t]), a sum of negative numbers of its
own, so nothing overflows and no digits are lost. The number of levels follows from the length at capture; at
another length the last level is longer or shorter, and the result as exact. All directions over a map are one
scan, as so many groups of channels.

Letters of shapes: B batch, L length, N states, D channels, G groups, K directions, Q positions of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.kernels import cross_scan as cross
from blockforge.kernels import selective_scan as selective
from blockforge.kernels.backends import Operator
from blockforge.kernels.cross_scan.directions import Direction, rolled, unrolled


@contextmanager
def standard_scans() -> Iterator[None]:
    """While it lasts, captured graphs hold scans as this file has them."""
    ours: dict[Operator, Callable[..., Any]] = {selective.OPERATOR: selective_scan, cross.OPERATOR: cross_scan}
    usual = {operator: dict(operator.loaded) for operator in ours}
    for operator, form in ours.items():
        operator.loaded["torch"] = form
    try:
        yield
    finally:
        for operator, loaded in usual.items():
            operator.loaded = loaded


def cross_scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    dt_weight: Tensor,
    A: Tensor,
    D: Tensor | None = None,
    *,
    dt_bias: Tensor | None = None,
    directions: tuple[Direction, ...],
    window: int | None = None,
) -> Tensor:
    """See `blockforge.kernels.cross_scan`."""
    (height, width), sizes = x.shape[1:3], [x.shape[-1], dt.shape[-1], B.shape[-1], C.shape[-1]]
    sequences = []
    for k, direction in enumerate(directions):
        read = torch.cat([x, dt[..., k, :], B[..., k, :], C[..., k, :]], dim=-1)
        read = unrolled(read, direction.startswith("columns"), window or 0)
        sequences.append(read.flip(1) if direction.endswith("back") else read)
    u_BLKD, dt_BLKR, B_BLKN, C_BLKN = torch.stack(sequences, dim=2).split(sizes, dim=-1)
    delta_BLKD = (dt_BLKR.transpose(1, 2) @ dt_weight.mT).transpose(1, 2)
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
    return total


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """See `blockforge.kernels.selective_scan`."""
    dtype = torch.promote_types(u.dtype, torch.promote_types(A.dtype, torch.float32))
    u_BLD, step = u.mT.to(dtype), delta.mT.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias
    if delta_softplus:
        step = F.softplus(step)
    B_BLNG, C_BLNG = (t.to(dtype).permute(0, 3, 2, 1).unsqueeze(-1) for t in (B, C))
    log = step.unsqueeze(2) * A.to(dtype).mT
    added = ((step * u_BLD).unflatten(-1, (B.shape[1], -1)).unsqueeze(2) * B_BLNG).flatten(-2)
    if reverse:
        log, added = log.flip(1), added.flip(1)
    states = _scan(log, added, *_cut(u.shape[2], A.shape[1]))
    if reverse:
        states = states.flip(1)
    y = (states.unflatten(-1, (B.shape[1], -1)) * C_BLNG).sum(2).flatten(-2)
    return (y if D is None else y + u_BLD * D).to(u.dtype).mT


def _cut(length: int | torch.SymInt, d_state: int) -> tuple[int, int]:
    """Positions of a chunk, and how often to cut. Q * L * N * D elements are alive: many states, small chunks.

    Even an eighth of the length leaves several chunks at the last level, so that no size of 1 is met there, for
    which torch would have to capture another graph.
    """
    size = 16 if d_state <= 2 else 8 if d_state <= 8 else 4
    now = length if isinstance(length, int) else length.node.hint
    return size, max(0, math.ceil(math.log(max(1, now // 8), size)) - 1)


def _scan(log: Tensor, added: Tensor, size: int, levels: int) -> Tensor:
    """(B, L, N, D) -> the states, h[t] = exp(log[t]) h[t-1] + added[t]."""
    if levels == 0:
        return _within(log, added)
    length = log.shape[1]
    missing = (length + size - 1) // size * size - length
    log_BKQND, added_BKQND = (F.pad(t, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, size)) for t in (log, added))
    states = _within(log_BKQND, added_BKQND)
    from_start = log_BKQND.cumsum(-3)
    ends = _scan(from_start[:, :, -1], states[:, :, -1], size, levels - 1)
    entering = F.pad(ends, (0, 0, 0, 0, 1, -1)).unsqueeze(2)
    return (states + from_start.exp() * entering).flatten(1, 2)[:, :length]


def _within(log: Tensor, added: Tensor) -> Tensor:
    """(..., Q, N, D): the states of chunks that start from zero, every position from every earlier one."""
    seen = log.new_ones(log.shape[-3], log.shape[-3]).tril()  # at [t, s]: whether t sees s
    seen_QQND, after_QQND = (mask[..., None, None] for mask in (seen, seen.tril(-1)))
    decay = (log.unsqueeze(-3) * after_QQND).cumsum(-4).exp() * seen_QQND
    return (decay * added.unsqueeze(-4)).sum(-3)

"""The selective scan in captured graphs and transforms: pure operations, differentiable as often as one likes.

While torch compiles, traces or transforms a function, a scan by doubling: after k rounds every position holds what
the 2^k positions up to it give. The compiler fuses a round to one pass. The number of rounds follows from the
length, so torch compiles anew for another one.

An exported graph holds a few dozen operators, whatever the length, and serves every length. The sequence is cut into
chunks, and the chunks' ends again, until few are left. Within a chunk every position reads every earlier one, each
through its own decay: exp(log[s+1] + ... + log[t]), a sum of negative numbers of its own, so nothing overflows and no
digits are lost. The number of levels follows from the length at capture; at another length the last level is longer
or shorter, and the result as exact.

Letters of shapes: B batch, L length, N states, D channels, G groups, K chunks, Q positions of a chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
) -> Tensor:
    """See the package's `selective_scan`."""
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
    states = by_chunks(log, added) if torch.compiler.is_exporting() else by_doubling(log, added)
    if reverse:
        states = states.flip(1)
    y = (states.unflatten(-1, (B.shape[1], -1)) * C_BLNG).sum(2).flatten(-2)
    return (y if D is None else y + u_BLD * D).to(u.dtype).mT


def by_doubling(log: Tensor, added: Tensor) -> Tensor:
    """(B, L, N, D) -> the states, h[t] = exp(log[t]) h[t-1] + added[t]."""
    decay, states, reach = log.exp(), added, 1
    while reach < log.shape[1]:  # each position takes in the one `reach` before it; the first ones have none
        earlier, later = slice(None, -reach), slice(reach, None)
        taken_in = states[:, later] + decay[:, later] * states[:, earlier]
        states = torch.cat([states[:, :reach], taken_in], 1)
        decay = torch.cat([decay[:, :reach], decay[:, later] * decay[:, earlier]], 1)
        reach *= 2
    return states


def by_chunks(log: Tensor, added: Tensor) -> Tensor:
    """The same for every length, in a number of operators that hardly depends on it."""
    return _scan(log, added, *_cut(log.shape[1], log.shape[2]))


def _cut(length: int | torch.SymInt, d_state: int) -> tuple[int, int]:
    """Positions of a chunk, and how often to cut. Q * L * N * D elements are alive: many states, small chunks.

    Even an eighth of the length leaves several chunks at the last level, so that no size of 1 is met there, for
    which torch would have to capture another graph.
    """
    size = 16 if d_state <= 2 else 8 if d_state <= 8 else 4
    left = (length.node.hint if isinstance(length, torch.SymInt) else length) // 8
    levels = 0
    while left > size:
        left, levels = -(-left // size), levels + 1
    return size, levels


def _scan(log: Tensor, added: Tensor, size: int, levels: int) -> Tensor:
    if levels == 0:
        return _within(log, added)
    missing = (log.shape[1] + size - 1) // size * size - log.shape[1]
    log_BKQND, added_BKQND = (F.pad(t, (0, 0, 0, 0, 0, missing)).unflatten(1, (-1, size)) for t in (log, added))
    states = _within(log_BKQND, added_BKQND)
    from_start = log_BKQND.cumsum(-3)
    ends = _scan(from_start[:, :, -1], states[:, :, -1], size, levels - 1)
    entering = F.pad(ends, (0, 0, 0, 0, 1, -1)).unsqueeze(2)
    states = (states + from_start.exp() * entering).flatten(1, 2)
    return F.pad(states, (0, 0, 0, 0, 0, -missing))  # a slice would be a view, and ask whether it cut off anything


def _within(log: Tensor, added: Tensor) -> Tensor:
    """(..., Q, N, D): the states of chunks that start from zero, every position from every earlier one."""
    seen = log.new_ones(log.shape[-3], log.shape[-3]).tril()  # at [t, s]: whether t sees s
    seen_QQND, after_QQND = (mask[..., None, None] for mask in (seen, seen.tril(-1)))
    decay = (log.unsqueeze(-3) * after_QQND).cumsum(-4).exp() * seen_QQND
    return (decay * added.unsqueeze(-4)).sum(-3)

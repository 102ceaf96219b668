"""State space duality for captured graphs and transforms: pure operators, differentiable as often as one likes; all
chunks at once, no loop, so the graph does not grow with the length.

The states that enter the chunks are one more product with decays, between chunks. Eager calls do not come here:
the copies that its products need cost them more than the loop (measured: docs/kernels-mixers.md).

Letters: B batch, L length, K chunks, Q positions of a chunk, G groups, R heads of a group, P width of a head,
N states.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64
"""Positions in a chunk; the states cost the square of the number of chunks."""


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    reverse: bool = False,
) -> Tensor:
    """See the package's `ssd`."""
    dtype = torch.promote_types(x_BLHP.dtype, torch.float32)
    with torch.autocast(x_BLHP.device.type, enabled=False):
        x, dt, B, C = (t.to(dtype) for t in (x_BLHP, dt_BLH, B_BLGN, C_BLGN))
        if reverse:
            x, dt, B, C = (t.flip(1) for t in (x, dt, B, C))
        chunks = _Chunks.of(x, dt, A_H.to(dtype), B, C)
        y = chunks.outputs(chunks.states())[:, : x.shape[1]]
        y = y if D_H is None else y + D_H.to(dtype)[:, None] * x
        return (y.flip(1) if reverse else y).to(x_BLHP.dtype)


def decays(log_Q: Tensor) -> Tensor:
    """(..., Q) -> (..., Q, Q): at [t, s] the decay from s to t, exp(log[s+1] + ... + log[t]); 0 where s > t.

    Each sum is its own: the difference of two running sums would lose digits where they are large.
    """
    steps = log_Q.unsqueeze(-1).expand(*log_Q.shape, log_Q.shape[-1])
    return steps.tril(-1).cumsum(-2).exp().tril()


def to_end(log_Q: Tensor) -> Tensor:
    """(..., Q) -> the same: at [s] the logarithm of the decay from s to the end, log[s+1] + ..."""
    return F.pad(log_Q[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)


class _Chunks(NamedTuple):
    """A sequence cut into chunks, filled up with steps of 0, which leave the state as it is."""

    dtx: Tensor  # (B, K, G, Q, R, P), each x times its step
    log: Tensor  # (B, K, G, R, Q), logarithms of the decays
    B: Tensor  # (B, K, G, Q, N)
    C: Tensor  # (B, K, G, Q, N)

    @classmethod
    def of(cls, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> _Chunks:
        groups, missing = B.shape[2], -x.shape[1] % CHUNK
        dtx, log = x * dt.unsqueeze(-1), dt * A
        dtx, log, B, C = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, missing)) for t in (dtx, log, B, C))
        dtx, log, B, C = (t.unflatten(1, (-1, CHUNK)) for t in (dtx, log, B, C))
        dtx, log = (t.unflatten(3, (groups, -1)) for t in (dtx, log))
        return cls(dtx.transpose(2, 3), log.permute(0, 1, 3, 4, 2), B.transpose(2, 3), C.transpose(2, 3))

    def states(self) -> Tensor:
        """The states that enter the chunks, (B, K, G, N, R * P)."""
        added = self.B.mT @ (self.dtx * to_end(self.log).exp().mT.unsqueeze(-1)).flatten(4)
        added_BGRKNP = added.unflatten(-1, self.dtx.shape[-2:]).permute(0, 2, 4, 1, 3, 5)
        before = F.pad(added_BGRKNP.flatten(4)[..., :-1, :], (0, 0, 1, 0))
        passed = F.pad(self.log.sum(-1).permute(0, 2, 3, 1)[..., :-1], (1, 0))  # [k]: through chunk k - 1
        entering = (decays(passed) @ before).unflatten(-1, added_BGRKNP.shape[-2:])
        return entering.permute(0, 3, 1, 4, 2, 5).flatten(4)

    def outputs(self, entering: Tensor) -> Tensor:
        """y without the skip by D, (B, K * Q, H, P)."""
        weights_BKGRQQ = (self.C @ self.B.mT).unsqueeze(3) * decays(self.log)
        y_BKGQRP = (weights_BKGRQQ @ self.dtx.transpose(3, 4)).transpose(3, 4)
        from_start = self.log.cumsum(-1).exp().mT.unsqueeze(-1)
        y_BKGQRP = y_BKGQRP + from_start * (self.C @ entering).unflatten(-1, self.dtx.shape[-2:])
        return y_BKGQRP.transpose(2, 3).flatten(3, 4).flatten(1, 2)

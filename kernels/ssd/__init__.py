"""State space duality (Mamba-2's scan): one scalar decay a head, states shared by groups of heads.

Letters: B batch, L length, H heads, P width of a head, G groups of heads, N states.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere
from blockforge.kernels.ssd.limits import check_shapes, fits_triton

__all__ = ["OPERATOR", "bi_ssd", "ssd", "ssd_macs"]

OPERATOR = Operator("ssd", triton=fits_triton, torch=anywhere, reference=anywhere)


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Scan a sequence: h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t], h = 0 before the first position;
    y[t] = C[t] h[t] + D x[t].

    Args:
        x_BLHP: the sequence, as heads.
        dt_BLH: step sizes, positive.
        A_H: decay rate of each head, negative.
        B_BLGN, C_BLGN: input and output weights of the states; head h reads group h // (H / G).
        D_H: weight of x in y, a head; None: 0.
        reverse: from the last position to the first.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns:
        y_BLHP, of x's type; the arithmetic is in float32 at least.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: Mamba-2, https://arxiv.org/abs/2405.21060.
    """
    check_shapes(x_BLHP, B_BLGN, C_BLGN, {"dt": dt_BLH}, A=A_H, D=D_H)
    run = OPERATOR.pick(x_BLHP, backend, head_dim=x_BLHP.shape[-1], d_state=B_BLGN.shape[-1])
    y: Tensor = run(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse)
    return y


def bi_ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`ssd` in two directions: the second half of the heads, which reads the second half of the groups, runs
    from the last position to the first. Arguments, result and errors as there; H and G are even."""
    x, dt, B, C = (t.chunk(2, dim=2) for t in (x_BLHP, dt_BLH, B_BLGN, C_BLGN))
    A, D = A_H.chunk(2), (None, None) if D_H is None else D_H.chunk(2)
    halves = [ssd(x[i], dt[i], A[i], B[i], C[i], D[i], reverse=i == 1, backend=backend) for i in range(2)]
    return torch.cat(halves, dim=2)


def ssd_macs(length: int, dim: int, d_state: int) -> int:
    """Multiply-adds of a scan by convention: 9 L D N + L D for D = H * P channels, however computed."""
    return 9 * length * dim * d_state + length * dim

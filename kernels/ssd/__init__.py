"""State space duality (Mamba-2's scan): one scalar decay a head, states shared by groups of heads.

Letters: B batch, L length, H heads, P width of a head, G groups of heads, N states.
"""

from __future__ import annotations

from torch import Tensor

from blockforge.kernels.ssd.reference import reference
from blockforge.kernels.ssd.torch_impl import torch_impl

__all__ = ["reference", "ssd", "ssd_macs", "torch_impl"]


def ssd(
    x_BLHP: Tensor,
    dt_BLH: Tensor,
    A_H: Tensor,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    """Scan a sequence: h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t]; y[t] = C[t] h[t] + D x[t].

    Args:
        x_BLHP: the sequence, as heads.
        dt_BLH: step sizes, positive.
        A_H: decay rate of each head, negative.
        B_BLGN, C_BLGN: input and output weights of the states; head h reads group h // (H / G).
        D_H: weight of x in y, a head; None: 0.
        reverse: from the last position to the first.

    Returns:
        y_BLHP, of x's type; the arithmetic is in float32 at least.
    """
    return torch_impl(x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN, D_H, reverse=reverse)


def ssd_macs(length: int, dim: int, d_state: int) -> int:
    """Multiply-adds of a scan by convention: 9 L D N + L D for D = H * P channels, however computed."""
    return 9 * length * dim * d_state + length * dim

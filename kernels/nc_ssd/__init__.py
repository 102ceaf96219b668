"""Non-causal state space duality (VSSD): one state a head, gathered from all positions and read by all.

Letters: B batch, L length, H heads, P width of a head, G groups of heads, N states.
"""

from __future__ import annotations

from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere
from blockforge.kernels.ssd.limits import check_shapes, fits_triton

__all__ = ["OPERATOR", "nc_ssd"]

OPERATOR = Operator("nc_ssd", triton=fits_triton, torch=anywhere, reference=anywhere)


def nc_ssd(
    x_BLHP: Tensor,
    m_BLH: Tensor | None,
    B_BLGN: Tensor,
    C_BLGN: Tensor,
    D_H: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Gather and read: h = sum over t of m[t] B[t] x[t]; y[t] = C[t] h + D x[t].

    Args:
        x_BLHP: the tokens, as heads.
        m_BLH: weight of each token in the state; None: 1.
        B_BLGN, C_BLGN: input and output weights of the states; head h reads group h mod G, as in the released
            code. (`ssd` has the heads of a group side by side.)
        D_H: weight of x in y, a head; None: 0.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns:
        y_BLHP, of x's type. Sums are kept in float32 at least.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: VSSD, https://arxiv.org/abs/2407.18559, section 3.2.
    """
    check_shapes(x_BLHP, B_BLGN, C_BLGN, {"m": m_BLH}, D=D_H)
    run = OPERATOR.pick(x_BLHP, backend, head_dim=x_BLHP.shape[-1], d_state=B_BLGN.shape[-1])
    y: Tensor = run(x_BLHP, m_BLH, B_BLGN, C_BLGN, D_H)
    return y

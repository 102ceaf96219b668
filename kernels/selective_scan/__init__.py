"""The selective scan of Mamba (S6): one recurrence a channel and state, with input-dependent steps."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere, needs_numba, needs_triton
from blockforge.kernels.costs import costed
from blockforge.kernels.selective_scan import torch_impl

__all__ = ["OPERATOR", "fits_numba", "fits_triton", "selective_scan", "workspace"]


_DOUBLE = "its scan computes in float32, not in float64"


def fits_numba(x: Tensor, *, double: bool = False) -> str | None:
    """Why numba cannot run a scan, or None. `double`: whether it is to be in float64."""
    return needs_numba(x) or (_DOUBLE if double else None)


def fits_triton(x: Tensor, *, double: bool = False) -> str | None:
    """Why triton cannot run a scan, or None."""
    return needs_triton(x) or (_DOUBLE if double else None)


OPERATOR = Operator(
    "selective_scan", ("numba",), triton=fits_triton, numba=fits_numba, torch=anywhere, reference=anywhere
)


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
    backend: str | None = None,
) -> Tensor:
    """Selective scan along a sequence: h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t], h = 0 before the
    first position, and y[t] = <C[t], h[t]> + D u[t].

    Args:
        u: input, (batch, channels, L).
        delta: step sizes, (batch, channels, L).
        A: (channels, N), negative, so that states decay.
        B, C: input and output maps of each position, (batch, groups, N, L); a group serves channels / groups
            adjacent channels.
        D: weight of the input in the output, (channels,), or None.
        delta_bias: added to delta, (channels,), or None.
        delta_softplus: whether softplus(delta + delta_bias) is the step.
        reverse: run from the last position to the first.
        backend: what runs it, see `blockforge.kernels.backends`; None: as the context or the environment says.

    Returns:
        y like u, in its dtype; half precision is computed in float32, float64 where u or A is. In memory
        its channels lie side by side.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, https://arxiv.org/abs/2312.00752.
    """
    _check(u, delta, A, B, C, D, delta_bias)
    run = OPERATOR.pick(u, backend, double=torch.float64 in (u.dtype, A.dtype))
    y: Tensor = run(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
    return y


def workspace(length: int, dim: int, d_state: int, *, dense: bool = True) -> int:
    """Most elements alive at once inside a scan of one sequence without gradients, its result included, on the
    backend that costs are of (`kernels.costs`).

    Args:
        dense: whether the positions of u lie one behind the other; not so where u is a part of wider channels.
    """
    if costed() == "numba":
        return length * dim
    return torch_impl.workspace(length, dim, d_state) + length * dim * (not dense)


def _check(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None
) -> None:
    if u.ndim != 3 or u.shape[2] < 1:
        raise ValueError(f"u must be (batch, channels, L), L >= 1, not {tuple(u.shape)}")
    batch, dim, length = u.shape
    groups = B.shape[1] if B.ndim == 4 else 1
    if groups < 1 or dim % groups:
        raise ValueError(f"{dim} channels cannot be split into the {groups} groups of B")
    if A.ndim != 2 or A.shape[0] != dim:
        raise ValueError(f"A must be (channels, N) with {dim} channels, not {tuple(A.shape)}")
    mapped, a_channel = (batch, groups, A.shape[1], length), (dim,)
    for name, tensor, shape in (
        ("delta", delta, u.shape),
        ("B", B, mapped),
        ("C", C, mapped),
        ("D", D, a_channel),
        ("delta_bias", delta_bias, a_channel),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, not {tuple(tensor.shape)}")

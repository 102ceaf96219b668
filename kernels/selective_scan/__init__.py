"""The selective scan of Mamba (S6): one recurrence a channel and state, with input-dependent steps."""

from __future__ import annotations

from torch import Tensor

from blockforge.kernels.selective_scan import torch_impl
from blockforge.kernels.selective_scan.torch_impl import workspace

__all__ = ["selective_scan", "workspace"]


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

    Returns:
        y like u, in its dtype; half precision is computed in float32, float64 where u or A is. In memory
        its channels lie side by side.

    Raises: ValueError if the shapes do not fit.
    Reference: Mamba: Linear-Time Sequence Modeling with Selective State Spaces, https://arxiv.org/abs/2312.00752.
    """
    _check(u, delta, A, B, C, D, delta_bias)
    return torch_impl.selective_scan(
        u, delta, A, B, C, D, delta_bias=delta_bias, delta_softplus=delta_softplus, reverse=reverse
    )


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
    mapped = (batch, groups, A.shape[1], length)
    wanted = {"delta": (delta, tuple(u.shape)), "B": (B, mapped), "C": (C, mapped)}
    wanted |= {n: (t, (dim,)) for n, t in (("D", D), ("delta_bias", delta_bias)) if t is not None}
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, not {tuple(tensor.shape)}")

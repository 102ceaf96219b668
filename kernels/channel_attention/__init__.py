"""DMCA's channel attention: channels attend to channels over all positions, and what they find is joined with the map.

Letters: B batch, L positions of the map, P positions of queries and keys, C channels, G groups, N = C / G channels of
a group, J = 3 C channels of the joined map.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere, needs_numba, needs_triton
from blockforge.kernels.costs import costed

__all__ = ["OPERATOR", "channel_attention", "workspace"]

_WIDEST = 4096


def fits_triton(x: Tensor, *, dtype: str | None = None, width: int = 1) -> str | None:
    """Refuses what `needs_triton` refuses, float64, and groups of which one row of weights fills the registers."""
    if why := needs_triton(x):
        return why
    if (dtype or str(x.dtype)) == "torch.float64":
        return "its kernels compute in float32, the tensors are float64"
    return f"a group of {width} channels is too wide for its kernels" if width > _WIDEST else None


def fits_numba(x: Tensor, *, dtype: str | None = None, width: int = 1) -> str | None:
    """Refuses what `needs_numba` refuses, and everything but float32."""
    if why := needs_numba(x):
        return why
    dtype = dtype or str(x.dtype)
    return None if dtype == "torch.float32" else f"its kernel computes in float32, the tensors are {dtype[6:]}"


OPERATOR = Operator(
    "channel_attention", ("numba",), triton=fits_triton, numba=fits_numba, torch=anywhere, reference=anywhere
)


def channel_attention(
    x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int, *, backend: str | None = None
) -> Tensor:
    """In each group of channels attended = v W^T with W = softmax(P^-1/2 q^T k), an N x N matrix. Then
    y[j C + i] = [x, attended, v][3 i + j] for i < C and j < 3: the three maps side by side, their channels interleaved.

    Args:
        x_BLC: what `attended` and the values are joined with.
        q_BPC, k_BPC: queries and keys, on a map of any other size.
        v_BLC: values.
        groups: G; the channels of a group lie side by side.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns:
        y_BLJ, of the wider type of x and v.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: SparX, https://arxiv.org/abs/2409.09649, section 3.2.
    """
    _check(x_BLC, q_BPC, k_BPC, v_BLC, groups)
    dtype = reduce(torch.promote_types, (t.dtype for t in (q_BPC, k_BPC, v_BLC)), x_BLC.dtype)
    run = OPERATOR.pick(x_BLC, backend, dtype=str(dtype), width=x_BLC.shape[2] // groups)
    y: Tensor = run(x_BLC, q_BPC, k_BPC, v_BLC, groups)
    return y


def workspace(positions: int, reduced: int, dim: int, groups: int) -> int:
    """Most elements alive at once without gradients for one map in float32, its result included, on the backend that
    costs are of (`kernels.costs`). `reduced` are the positions of queries and keys."""
    whole, width = positions * dim, dim // groups
    if costed() == "numba":
        return 3 * whole
    last_group = whole - whole // groups + reduced * dim + (3 if groups > 1 else 2) * width * width
    return max(last_group, 4 * whole)


def _check(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> None:
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"x must be (batch, L, channels), not {tuple(x.shape)}")
    batch, _, dim = x.shape
    if q.ndim != 3 or q.shape[1] < 1 or (q.shape[0], q.shape[2]) != (batch, dim):
        raise ValueError(f"q must be (batch {batch}, P, channels {dim}), P >= 1, not {tuple(q.shape)}")
    if groups < 1 or dim % groups:
        raise ValueError(f"{dim} channels cannot be split into {groups} groups")
    for name, tensor, like in (("k", k, q), ("v", v, x)):
        if tensor.shape != like.shape:
            raise ValueError(f"{name} must be {tuple(like.shape)}, not {tuple(tensor.shape)}")

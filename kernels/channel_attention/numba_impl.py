"""Channel attention compiled by numba for CPUs, as an operator of torch.

Letters: B batch, L positions of the map, P positions of queries and keys, C channels, N channels of a group,
J = 3 C.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, library

from blockforge.kernels.buffers import address, empty
from blockforge.kernels.channel_attention import numba_kernels, torch_impl
from blockforge.kernels.channel_attention.derivative import backward, save
from blockforge.kernels.cpu.jit import pieces, spread


def channel_attention(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> Tensor:
    """See the package's `channel_attention`. In float32; no copies where channels lie side by side."""
    y: Tensor = _operator(x_BLC, q_BPC, k_BPC, v_BLC, groups)
    return y


@library.custom_op(
    "blockforge::channel_attention_numba",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor q, Tensor k, Tensor v, int groups) -> Tensor",
)
def _operator(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    y, dtype = empty((*x.shape[:2], 3 * x.shape[2]), x), _dtype(x, v)
    operands = [_rows(t) for t in (x, q, k, v)]
    shapes = (t.shape for t in (x, q, q, x))
    addresses = [address(t, shape, inner=1) for t, shape in zip(operands, shapes, strict=True)]
    strides, target = tuple(s for t in operands for s in t.stride()[:2]), address(y, y.shape, inner=3)
    (batch, length, dim), reduced = x.shape, q.shape[1]
    scale, size = np.float32(reduced**-0.5), numba_kernels.scratch_of(reduced, dim, dim // groups)

    def run(piece: int, first: int, last: int) -> None:
        scratch = empty((size,), y)
        numba_kernels.forward(
            *addresses, strides, length, reduced, dim, groups, first, last, scale, address(scratch, (size,)), target
        )

    items = batch * -(-length // numba_kernels.ROWS)
    spread(pieces(items, y.numel()), items, run)
    return y.to(dtype)


@_operator.register_fake
def _(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    return x.new_empty(*x.shape[:2], 3 * x.shape[2], dtype=_dtype(x, v))


_operator.register_autograd(backward, setup_context=save)


# What counters of operations see in its place, also those that were made before this file was imported.
library.impl("blockforge::channel_attention_numba", "CompositeImplicitAutograd", torch_impl.channel_attention)


def _dtype(x: Tensor, v: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, v.dtype)


def _rows(x: Tensor) -> Tensor:
    """In float32, with channels side by side."""
    x = x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()

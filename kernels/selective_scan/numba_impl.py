"""The selective scan compiled by numba for CPUs, as an operator of torch with its derivative.

Letters of shapes: B batch, L length, D channels, G groups, N states.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blockforge.kernels.buffers import address, zeros
from blockforge.kernels.cpu.jit import pieces, spread
from blockforge.kernels.cross_scan.directions import Order
from blockforge.kernels.selective_scan import numba_backward, numba_kernels, operators

Array = np.ndarray[Any, Any]


class Scan(NamedTuple):
    """The operands of a scan in the kernels' layout, float32.

    Attributes:
        u, delta: (B, L, D), channels side by side, else of any strides.
        A: (D, N), of any strides.
        B, C: (B, G, N, L), of any strides.
        D, bias: (D,), dense; zeros where there is none.
        order: the positions in the order of the scan.
        softplus: whether softplus(delta + bias) is the step.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor
    order: Order
    softplus: bool

    @classmethod
    def of(cls, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
           bias: Tensor | None, order: Order, softplus: bool) -> Scan:  # fmt: skip
        """Operands with u and delta (B, L, D), A (D, N), of any type and layout."""
        D, bias = (_rows(zeros(u.shape[2:], u) if t is None else t) for t in (D, bias))
        return cls(_rows(u), _rows(delta), _float(A), _float(B), _float(C), D, bias, order, softplus)

    def forward(self, y: Tensor, add: bool) -> None:
        """y_BLD <- the output, or + the output."""
        work, operands, target = self._work(), self._given(y), address(y, self.u.shape, inner=1)

        def run(piece: int, first: int, last: int) -> None:
            numba_kernels.forward(*operands, work.items, work.tiles, first, last, self.softplus, add, target)

        spread(work.pieces, len(work.items), run)

    def backward(self, dy: Tensor, du: Tensor, ddelta: Tensor, add: bool) -> tuple[Tensor, ...]:
        """Gradients of A (N, D), B and C (B, G, L, N), D and the bias; that of u goes into, or is added to, du, and
        that of delta into ddelta. Both are dense (B, L, D), and ddelta may be delta itself."""
        batch, length, channels = self.u.shape
        states, groups = self.A.shape[1], self.B.shape[1]
        work, dy = self._work(), _rows(dy)
        shared = len(work.items) == batch  # then no two items add to the same dB
        dB, dC = (zeros((1 if shared else work.pieces, batch, groups, length, states), dy) for _ in range(2))
        summed = (states, channels), (channels,), (channels,)
        dA, dD, dbias = (zeros((work.pieces, *shape), dy) for shape in summed)
        operands, whole = self._given(dy), self.u.shape
        outputs = address(dy, whole, inner=1), address(du, whole, inner=3), address(ddelta, whole, inner=3)
        sums = [t.numpy() for t in (dB, dC, dA, dD, dbias)]

        def run(piece: int, first: int, last: int) -> None:
            own = [t[0 if len(t) == 1 else piece] for t in sums]
            items = (work.items, work.tiles, first, last, self.softplus, add)
            numba_backward.backward(*operands, *items, *outputs, *own, _chunk(length, states))

        spread(work.pieces, len(work.items), run)
        dA, dB, dC, dD, dbias = (t[0] if len(t) == 1 else t.sum(0) for t in (dA, dB, dC, dD, dbias))
        return dA, dB, dC, dD, dbias

    def _work(self) -> _Work:
        batch, length, channels = self.u.shape
        states, groups = self.A.shape[1], self.B.shape[1]
        wanted = pieces(batch * channels, self.u.numel() * states)
        return _Work.cut(batch, groups, channels // groups, _most_tiles(length, states), wanted)

    def _given(self, y: Tensor) -> tuple[Any, ...]:
        """What both kernels take first; `y` is the output or its gradient."""
        u, delta, A, B, C, D, bias, order, _ = self
        whole, mapped = u.shape, (u.shape[0], B.shape[1], A.shape[1], u.shape[1])
        addresses = (
            address(u, whole, inner=1), address(delta, whole, inner=1), address(B, mapped), address(C, mapped),
            address(A, (whole[2], A.shape[1])), address(D, whole[2:], inner=1), address(bias, whole[2:], inner=1),
        )  # fmt: skip
        strides = (*u.stride()[:2], *delta.stride()[:2], *B.stride(), *C.stride(), *y.stride()[:2], *A.stride())
        return (*addresses, order.array(), strides, *A.shape)


class _Work(NamedTuple):
    """How the work is cut, see `numba_kernels`."""

    items: Array
    tiles: Array
    pieces: int

    @staticmethod
    @lru_cache(maxsize=256)
    def cut(batch: int, groups: int, per_group: int, most: int, wanted: int) -> _Work:
        """Items of at most `most` tiles; at least `wanted` of them where tiles do not get too narrow."""
        a_sequence = -(-wanted // max(1, batch))  # items
        count = max(-(-per_group // numba_kernels.WIDTH), min(-(-a_sequence // groups), -(-per_group // 16)))
        width = -(-per_group // (16 * count)) * 16  # whole vectors
        starts = range(0, per_group, width)
        tiles = [(g, g * per_group + c, min(width, per_group - c)) for g in range(groups) for c in starts]
        run = max(1, min(most, len(tiles) // a_sequence))
        firsts = range(0, len(tiles), run)
        items = [(b, first, min(run, len(tiles) - first)) for b in range(batch) for first in firsts]
        return _Work(np.array(items, np.int64), np.array(tiles, np.int64), min(wanted, len(items)))


def _chunk(length: int, states: int) -> int:
    """Positions in a chunk of the backward pass: as much memory inside a chunk as between them."""
    return max(1, round(math.sqrt(length * states / (4 + 2 * states))))


def _most_tiles(length: int, states: int) -> int:
    """Tiles whose chunk fits into the second cache, of which half a MiB is taken to be there."""
    return max(1, 2**17 // (_chunk(length, states) * (4 + 2 * states) * numba_kernels.WIDTH))


def _float(x: Tensor) -> Tensor:
    """In float32. Asked first: a call of torch that does nothing is slow where caches are cold."""
    return x if x.dtype == torch.float32 else x.float()


def _rows(x: Tensor) -> Tensor:
    """In float32, with channels side by side."""
    x = _float(x)
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


selective_scan = operators.differentiable("numba", Scan)

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

from blockforge.kernels.jit import flat, pieces, spread
from blockforge.kernels.selective_scan import numba_kernels, operators

Array = np.ndarray[Any, Any]


class Scan(NamedTuple):
    """The operands of a scan in the kernels' layout, float32.

    Attributes:
        u, delta: (B, L, D), channels side by side, else of any strides.
        A: (N, D), dense.
        B, C: (B, G, N, L), of any strides.
        D, bias: (D,), dense; zeros where there is none.
        order: the positions in the order of the scan, (L,).
        softplus: whether softplus(delta + bias) is the step.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor
    order: Array
    softplus: bool

    @classmethod
    def of(cls, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
           bias: Tensor | None, order: Array, softplus: bool) -> Scan:  # fmt: skip
        """Operands with u and delta (B, L, D), A (D, N), of any type and layout."""
        none = torch.zeros(u.shape[2]) if D is None or bias is None else None
        D, bias = (none if t is None else t.float().contiguous() for t in (D, bias))
        assert D is not None
        assert bias is not None
        A = A.float().mT.contiguous()
        return cls(_rows(u), _rows(delta), A, B.float(), C.float(), D, bias, order, softplus)

    def forward(self, y: Tensor, add: bool) -> None:
        """y_BLD <- the output, or + the output."""
        work, operands, target = self._work(), self._arrays(y), flat(y)

        def run(piece: int, first: int, last: int) -> None:
            numba_kernels.forward(*operands, work.items, work.tiles, first, last, self.softplus, add, target)

        spread(work.pieces, len(work.items), run)

    def backward(self, dy: Tensor, du: Tensor, ddelta: Tensor, add: bool) -> tuple[Tensor, ...]:
        """Gradients of A (N, D), B and C (B, G, L, N), D and the bias; that of u goes into, or is added to, du, and
        that of delta into ddelta. Both are dense (B, L, D), and ddelta may be delta itself."""
        batch, length, channels = self.u.shape
        states, groups = self.A.shape[0], self.B.shape[1]
        work, dy = self._work(), _rows(dy)
        shared = len(work.items) == batch  # then no two items add to the same dB
        dB, dC = (torch.zeros(1 if shared else work.pieces, batch, groups, length, states) for _ in range(2))
        summed = (states, channels), (channels,), (channels,)
        dA, dD, dbias = (torch.zeros(work.pieces, *shape) for shape in summed)
        operands, outputs = self._arrays(dy), (flat(dy), flat(du), flat(ddelta))
        sums = [t.numpy() for t in (dB, dC, dA, dD, dbias)]

        def run(piece: int, first: int, last: int) -> None:
            own = [t[0 if len(t) == 1 else piece] for t in sums]
            items = (work.items, work.tiles, first, last, self.softplus, add)
            numba_kernels.backward(*operands, *items, *outputs, *own, _chunk(length, states))

        spread(work.pieces, len(work.items), run)
        dA, dB, dC, dD, dbias = (t[0] if len(t) == 1 else t.sum(0) for t in (dA, dB, dC, dD, dbias))
        return dA, dB, dC, dD, dbias

    def _work(self) -> _Work:
        batch, length, channels = self.u.shape
        states, groups = self.A.shape[0], self.B.shape[1]
        wanted = pieces(batch * channels, self.u.numel() * states)
        return _Work.cut(batch, groups, channels // groups, _most_tiles(length, states), wanted)

    def _arrays(self, y: Tensor) -> tuple[Any, ...]:
        strides = [*self.u.stride()[:2], *self.delta.stride()[:2], *self.B.stride(), *self.C.stride(), *y.stride()[:2]]
        arrays = [flat(t) for t in (self.u, self.delta, self.B, self.C)]
        parameters = [t.detach().numpy() for t in (self.A, self.D, self.bias)]
        return (*arrays, *parameters, self.order, tuple(strides))


class _Work(NamedTuple):
    """How the work is cut, see `numba_kernels`."""

    items: Array
    tiles: Array
    pieces: int

    @staticmethod
    @lru_cache(maxsize=256)
    def cut(batch: int, groups: int, per_group: int, most: int, wanted: int) -> _Work:
        """Items of at most `most` tiles; at least `wanted` of them where tiles do not get too narrow."""
        a_sequence = -(-wanted // batch)  # items
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


def _rows(x: Tensor) -> Tensor:
    """In float32, with channels side by side."""
    x = x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


selective_scan = operators.differentiable("numba", Scan)

"""Channel attention on CUDA devices: partial scores over tiles of positions, their sum and softmax, then the product,
which writes what is found, the map and the values where the joined map has them. The backward pass keeps the
operands alone and makes the weights once more.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor, library

from blockforge.kernels.buffers import empty
from blockforge.kernels.channel_attention import torch_impl, triton_kernels
from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile
from blockforge.kernels.signature import Signature, dense

_ROWS, _SIDE = 64, 32
"""Most positions and channels of a tile: the largest at which no program of 4 warps runs out of registers (seen in
what the compiler gives, not timed)."""
_TILES = 8
"""Tiles of positions that a program adds up into one partial sum."""
_ROW_ELEMENTS = 4096
"""Most weights in the registers of a program of the softmax."""
_DEVICES = ("cuda", "cpu")
"""Triton interprets kernels on the CPU."""


class _Launch:
    """Sizes that all kernels of a call share."""

    def __init__(self, x: Tensor, groups: int) -> None:
        self.batch, _, self.dim = x.shape
        self.groups, self.width = groups, self.dim // groups
        self.sizes = self.dim, groups, self.width
        side = min(_SIDE, tile(self.width))
        self.sides, wide = triton.cdiv(self.width, side), tile(self.width)
        self.tiles_of_rows = triton.cdiv(self.width, rows := max(1, min(16, _ROW_ELEMENTS // wide)))
        self.softmax: dict[str, Any] = {"ROWS": rows, "WIDE": wide, "num_warps": 4}
        self.products: dict[str, Any] = {"SIDE": side, "PRECISION": precision(x), "num_warps": 4, "num_stages": 1}

    def matrices(self, like: Tensor, *parts: int) -> Tensor:
        return empty((self.batch, self.groups, *parts, self.width, self.width), like)

    def scores(self, a: Tensor, b: Tensor, joined: bool = False) -> Tensor:
        """a^T b of each group, as partial sums."""
        length = b.shape[1]
        rows = min(_ROWS, tile(length))
        parts = triton.cdiv(length, rows * _TILES)
        out = self.matrices(b, parts)
        start(triton_kernels.scores, (parts * self.sides**2, self.batch * self.groups),
            a, b, out, *a.stride(), *b.stride(), length, *self.sizes, min(_TILES, triton.cdiv(length, rows)),
            JOINED=joined, Q=rows, **self.products
        )  # fmt: skip
        return out

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        scores, weights = self.scores(q, k), self.matrices(q)
        start(
            triton_kernels.softmax,
            (self.tiles_of_rows, self.batch * self.groups),
            scores,
            weights,
            q.shape[1] ** -0.5,
            scores.shape[2],
            self.width,
            **self.softmax,
        )
        return weights

    def of_scores(self, weights: Tensor, dy: Tensor, v: Tensor, scale: float) -> Tensor:
        """The gradient of the scores."""
        of_weights, of_scores = self.scores(dy, v, joined=True), torch.empty_like(weights)
        start(
            triton_kernels.softmax_gradient,
            (self.tiles_of_rows, self.batch * self.groups),
            of_weights,
            weights,
            of_scores,
            scale,
            of_weights.shape[2],
            self.width,
            **self.softmax,
        )
        return of_scores

    def at_positions(self, kernel: Any, length: int, *arguments: Any) -> None:
        rows = min(_ROWS, tile(length))
        grid = (triton.cdiv(length, rows) * self.sides, self.batch * self.groups)
        start(kernel, grid, *arguments, length, *self.sizes, Q=rows, **self.products)


def _result(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    return x.new_empty(*x.shape[:2], 3 * x.shape[2], dtype=torch.promote_types(x.dtype, v.dtype))


def _forward(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    launch, y = _Launch(x, groups), _result(x, q, k, v, groups)
    strides = (*x.stride(), *v.stride())
    launch.at_positions(triton_kernels.join, x.shape[1], x, v, launch.weights(q, k), y, *strides)
    return y


def _backward(dy: Tensor, x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, ...]:
    launch, (dx, dq, dk, dv) = _Launch(x, groups), (dense(t) for t in (x, q, k, v))
    weights = launch.weights(q, k)
    launch.at_positions(triton_kernels.split, x.shape[1], dy, weights, dx, dv, *dy.stride())
    of_scores, strides = launch.of_scores(weights, dy, v, q.shape[1] ** -0.5), (*q.stride(), *k.stride())
    launch.at_positions(triton_kernels.of_scores, q.shape[1], q, k, of_scores, dq, dk, *strides)
    return dx, dq, dk, dv


_SIGNATURE = Signature(
    "Tensor x, Tensor q, Tensor k, Tensor v, int groups", plain=torch_impl.channel_attention, result=_result
)
channel_attention = _SIGNATURE.bind("channel_attention_triton", _forward, _backward, device_types=_DEVICES)
# What counters of operations see in its place, also those that were made before this file was imported.
library.impl("blockforge::channel_attention_triton", "CompositeImplicitAutograd", torch_impl.channel_attention)

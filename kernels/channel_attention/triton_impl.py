"""Channel attention on CUDA devices: partial scores over tiles of positions, their sum and softmax, then the product,
which writes what is found, the map and the values where the joined map has them. The backward pass keeps the
operands alone and makes the weights once more.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor, library

from blockforge.kernels.buffers import empty
from blockforge.kernels.channel_attention import torch_impl, triton_kernels
from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile

_ROWS, _SIDE = 64, 32
"""Most positions and channels of a tile: the largest at which no program of 4 warps runs out of registers (seen in
what the compiler gives, not timed)."""
_TILES = 8
"""Tiles of positions that a program adds up into one partial sum."""
_ROW_ELEMENTS = 4096
"""Most weights in the registers of a program of the softmax."""
_OPERANDS = "Tensor x, Tensor q, Tensor k, Tensor v, int groups"
_DEVICES = ("cuda", "cpu")
"""Triton interprets kernels on the CPU."""


def channel_attention(x_BLC: Tensor, q_BPC: Tensor, k_BPC: Tensor, v_BLC: Tensor, groups: int) -> Tensor:
    """See the package's `channel_attention`."""
    y: Tensor = _operator(x_BLC, q_BPC, k_BPC, v_BLC, groups)
    return y


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
        of_weights, found = self.scores(dy, v, joined=True), torch.empty_like(weights)
        start(
            triton_kernels.softmax_gradient,
            (self.tiles_of_rows, self.batch * self.groups),
            of_weights,
            weights,
            found,
            scale,
            of_weights.shape[2],
            self.width,
            **self.softmax,
        )
        return found

    def at_positions(self, kernel: Any, length: int, *arguments: Any) -> None:
        rows = min(_ROWS, tile(length))
        grid = (triton.cdiv(length, rows) * self.sides, self.batch * self.groups)
        start(kernel, grid, *arguments, length, *self.sizes, Q=rows, **self.products)


@library.custom_op(
    "blockforge::channel_attention_triton", mutates_args=(), device_types=_DEVICES, schema=f"({_OPERANDS}) -> Tensor"
)
def _operator(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    launch, y = _Launch(x, groups), _fake(x, q, k, v, groups)
    strides = (*x.stride(), *v.stride())
    launch.at_positions(triton_kernels.join, x.shape[1], x, v, launch.weights(q, k), y, *strides)
    return y


@_operator.register_fake
def _fake(x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    return x.new_empty(*x.shape[:2], 3 * x.shape[2], dtype=torch.promote_types(x.dtype, v.dtype))


@library.custom_op(
    "blockforge::channel_attention_triton_backward",
    mutates_args=(),
    device_types=_DEVICES,
    schema=f"(Tensor dy, {_OPERANDS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _derivative(dy: Tensor, x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, ...]:
    launch, (dx, dq, dk, dv) = _Launch(x, groups), _fake_derivative(dy, x, q, k, v, groups)
    weights = launch.weights(q, k)
    launch.at_positions(triton_kernels.split, x.shape[1], dy, weights, dx, dv, *dy.stride())
    of_scores, strides = launch.of_scores(weights, dy, v, q.shape[1] ** -0.5), (*q.stride(), *k.stride())
    launch.at_positions(triton_kernels.of_scores, q.shape[1], q, k, of_scores, dq, dk, *strides)
    return dx, dq, dk, dv


@_derivative.register_fake
def _fake_derivative(dy: Tensor, x: Tensor, q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (x, q, k, v))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *operands, ctx.groups = inputs
    ctx.save_for_backward(*operands)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # read once: a checkpoint computes them for one reading
    if is_asked_for_more(dy):
        return (*of_plain(partial(torch_impl.channel_attention, groups=ctx.groups), dy, *tensors), None)
    return (*_derivative(dy, *tensors, ctx.groups), None)


_operator.register_autograd(_backward, setup_context=_save)
# What counters of operations see in its place, also those that were made before this file was imported.
library.impl("blockforge::channel_attention_triton", "CompositeImplicitAutograd", torch_impl.channel_attention)

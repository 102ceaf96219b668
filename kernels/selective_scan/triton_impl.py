"""The selective scan on CUDA devices: two kernels for the states that enter the chunks, one for the outputs; for the
backward pass these two, the same two the other way, and one for the gradients. The backward pass keeps the inputs
alone.

Letters of shapes: B batch, L length, D channels, G groups, N states, K chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from blockforge.kernels.buffers import zeros
from blockforge.kernels.cross_scan.directions import Order
from blockforge.kernels.gpu.launch import start
from blockforge.kernels.selective_scan import operators, triton_kernels

_CHUNK, _WIDTH, _WARPS = 64, 32, 8
"""Positions and channels of a tile: as many as registers hold (seen in what the compiler gives, not timed)."""
_BLOCK = 256
"""Elements of a state that a program passes from chunk to chunk."""


class Scan(NamedTuple):
    """The operands of a scan; see `numba_impl.Scan`, whose twin this is."""

    u: Tensor
    delta: Tensor
    A: Tensor  # (D, N)
    B: Tensor
    C: Tensor
    D: Tensor
    bias: Tensor
    order: Tensor
    softplus: bool

    @classmethod
    def of(cls, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
           bias: Tensor | None, order: Order, softplus: bool) -> Scan:  # fmt: skip
        """Operands with u and delta (B, L, D), A (D, N), of any type and layout."""
        none = zeros(u.shape[2:], u)
        D, bias = (none if t is None else t.float().contiguous() for t in (D, bias))
        return cls(u, delta, A.float().contiguous(), B, C, D, bias, order.on(u.device), softplus)

    def forward(self, y: Tensor, add: bool) -> None:
        """y_BLD <- the output, or + the output."""
        states = self._states(self.u, self.B, of_gradient=False)
        strides = (*self.u.stride(), *self.delta.stride(), *self.B.stride(), *self.C.stride(), *y.stride())
        start(triton_kernels.chunk_outputs, self._grid(),
            self.u, self.delta, self.B, self.C, self.A, self.D, self.bias, self.order, states, y, *strides,
            *self._sizes(), SOFTPLUS=self.softplus, ADD=add, **self._tile(),
        )  # fmt: skip

    def backward(self, dy: Tensor, du: Tensor, ddelta: Tensor, add: bool) -> tuple[Tensor, ...]:
        """Gradients of A (N, D), B and C (B, G, L, N), D and the bias; that of u goes into, or is added to, du, and
        that of delta into ddelta. Both are dense (B, L, D); ddelta may be delta itself."""
        batch, length, channels = self.u.shape
        states, groups = self.A.shape[1], self.B.shape[1]
        target = torch.empty_like(ddelta) if ddelta.data_ptr() == self.delta.data_ptr() else ddelta
        chunks, blocks = self._sizes()[1], self._grid()[1]
        dB, dC = (du.new_empty(batch, blocks, length, states, dtype=torch.float32) for _ in range(2))
        dA = du.new_empty(batch, chunks, channels, states, dtype=torch.float32)
        dD, dbias = (du.new_empty(batch, chunks, channels, dtype=torch.float32) for _ in range(2))
        strides = (*self.u.stride(), *self.delta.stride(), *self.B.stride(), *self.C.stride(), *dy.stride())
        start(triton_kernels.chunk_gradients, self._grid(),
            self.u, self.delta, self.B, self.C, self.A, self.D, self.bias, self.order,
            self._states(self.u, self.B, of_gradient=False), self._states(dy, self.C, of_gradient=True), dy,
            du, target, dB, dC, dA, dD, dbias, *strides, *self._sizes(), blocks,
            SOFTPLUS=self.softplus, ADD=add, **self._tile(),
        )  # fmt: skip
        if target is not ddelta:
            ddelta.copy_(target)
        dB, dC = (t.unflatten(1, (groups, -1)).sum(2) for t in (dB, dC))
        return dA.sum((0, 1)).mT, dB, dC, dD.sum((0, 1)), dbias.sum((0, 1))

    def _states(self, v: Tensor, weights: Tensor, of_gradient: bool) -> Tensor:
        """The states that enter the chunks, (B, K, D, N); with `of_gradient`, of dy as v and C as weights, the
        gradients that the later chunks pass to them."""
        batch, _, channels = self.u.shape
        sizes, states = self._sizes(), self.A.shape[1]
        ends = v.new_empty(batch, sizes[1], channels, states, dtype=torch.float32)
        sums = v.new_empty(batch, sizes[1], channels, dtype=torch.float32)
        start(triton_kernels.chunk_ends, self._grid(),
            v, self.delta, weights, self.A, self.bias, self.order, ends, sums, *v.stride(), *self.delta.stride(),
            *weights.stride(), *sizes, SOFTPLUS=self.softplus, OF_GRADIENT=of_gradient, **self._tile(),
        )  # fmt: skip
        grid = (triton.cdiv(channels * states, _BLOCK), batch)
        start(
            triton_kernels.pass_states,
            grid,
            ends,
            sums,
            self.A,
            sizes[1],
            channels,
            states,
            BACKWARDS=of_gradient,
            BLOCK=_BLOCK,
        )
        return ends

    def _chunk(self) -> int:
        return min(_CHUNK, triton.next_power_of_2(self.u.shape[1]))

    def _tile(self) -> dict[str, int]:
        return {"Q": self._chunk(), "WIDTH": _WIDTH, "num_warps": _WARPS}

    def _sizes(self) -> tuple[int, ...]:
        """L, K, channels, N, channels of a group, blocks of a group."""
        length, channels = self.u.shape[1:]
        per_group = channels // self.B.shape[1]
        chunks = triton.cdiv(length, self._chunk())
        return length, chunks, channels, self.A.shape[1], per_group, triton.cdiv(per_group, _WIDTH)

    def _grid(self) -> tuple[int, int, int]:
        return self._sizes()[1], self.B.shape[1] * self._sizes()[5], self.u.shape[0]


selective_scan = operators.differentiable("triton", Scan)

"""State space duality on CUDA devices: three kernels forward, six backward.

Forward: what each chunk adds to the state; the states that enter the chunks, one chunk after another; the
outputs. Backward: the entering states once more, the gradients of the states the other way, then the gradients
of each head and of each group. A backward pass keeps the scan's inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile
from blockforge.kernels.ssd import triton_kernels
from blockforge.kernels.ssd.operators import SIGNATURE

_FORWARD_CHUNK, _BACKWARD_CHUNK = 64, 32
"""Most positions in a chunk: as many as registers hold (seen in what the compiler gives, not timed)."""
_BLOCK = 1024
"""Elements of a state that a program passes from chunk to chunk."""


class _Launch:
    """Sizes that all kernels of a scan share."""

    def __init__(self, x: Tensor, B: Tensor, reverse: bool, most: int) -> None:
        self.batch, length, self.heads, width = x.shape
        self.groups, states = B.shape[2:]
        chunk = min(most, tile(length))
        self.chunks = triton.cdiv(length, chunk)
        self.sizes = length, self.heads, self.heads // self.groups, states, width, self.chunks
        self.options: dict[str, Any] = {
            "REVERSE": reverse,
            "Q": chunk,
            "STATES": tile(states),
            "WIDTH": tile(width),
            "PRECISION": precision(x),
            "num_warps": 8,
            "num_stages": 1,
        }
        self.states_shape = (self.batch, self.heads, self.chunks, states, width)

    def states(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, of_gradient: bool) -> Tensor:
        """The states that enter the chunks; with `of_gradient`, of C as B and dy as x, the gradients of the
        states that leave them."""
        added = x.new_empty(self.states_shape, dtype=torch.float32)
        totals = x.new_empty(self.states_shape[:3], dtype=torch.float32)
        strides = (*x.stride(), *dt.stride(), *B.stride())
        start(
            triton_kernels.chunk_states,
            (self.chunks, self.batch * self.heads),
            x,
            dt,
            A,
            B,
            added,
            totals,
            *strides,
            *self.sizes,
            OF_GRADIENT=of_gradient,
            **self.options,
        )
        size = self.states_shape[3] * self.states_shape[4]
        start(
            triton_kernels.pass_states,
            (self.batch * self.heads, triton.cdiv(size, _BLOCK)),
            added,
            totals,
            self.chunks,
            size,
            BACKWARDS=of_gradient,
            BLOCK=_BLOCK,
        )
        return added


def _forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Tensor:
    launch, y, A = _Launch(x, B, reverse, _FORWARD_CHUNK), x.new_empty(x.shape), A.contiguous()
    states = launch.states(x, dt, A, B, of_gradient=False)
    strides = (*x.stride(), *dt.stride(), *B.stride(), *C.stride(), *y.stride())
    start(triton_kernels.chunk_outputs, (launch.chunks, launch.batch * launch.heads),
        x, dt, A, B, C, A if D is None else D.contiguous(), states, y,
        *strides, *launch.sizes, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    return y


def _backward(
    dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool
) -> tuple[Tensor | None, ...]:
    launch, A = _Launch(x, B, reverse, _BACKWARD_CHUNK), A.contiguous()
    states = launch.states(x, dt, A, B, of_gradient=False)
    of_states = launch.states(dy, dt, A, C, of_gradient=True)
    dx, ddt, dB, dC = (t.new_empty(t.shape) for t in (x, dt, B, C))
    dA, dD = (x.new_empty(launch.states_shape[:3], dtype=torch.float32) for _ in range(2))
    strides = (*dy.stride(), *x.stride(), *dt.stride(), *B.stride(), *C.stride())
    start(triton_kernels.head_gradients, (launch.chunks, launch.batch * launch.heads),
        dy, x, dt, A, B, C, A if D is None else D.contiguous(), states, of_states, dx, ddt, dA, dD,
        *strides, *launch.sizes, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    start(
        triton_kernels.group_gradients,
        (launch.chunks, launch.batch * launch.groups),
        dy,
        x,
        dt,
        A,
        B,
        C,
        states,
        of_states,
        dB,
        dC,
        *strides,
        *launch.sizes,
        **launch.options,
    )
    of_D = None if D is None else dD.sum((0, 2)).to(D.dtype)
    return dx, ddt, dA.sum((0, 2)).to(A.dtype), dB, dC, of_D


ssd = SIGNATURE.bind("ssd_triton", _forward, _backward)

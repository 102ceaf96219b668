"""Non-causal state space duality on CUDA devices: gather the states, read them; the weights m and the skip D are
part of the two products. The backward pass gathers the states once more, and their gradients, which is the same
product with C and dy; then one kernel gives all other gradients. It keeps the inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile
from blockforge.kernels.nc_ssd import torch_impl, triton_kernels
from blockforge.kernels.signature import Signature, dense

_FORWARD_ROWS, _BACKWARD_ROWS = 64, 32
"""Most positions in a tile: as many as registers hold (seen in what the compiler gives, not timed)."""
_TILES = 8
"""Tiles that a program gathers into one partial state."""


class _Launch:
    """Sizes that all kernels of a call share."""

    def __init__(self, x: Tensor, B: Tensor, most: int) -> None:
        self.batch, self.length, self.heads, width = x.shape
        self.groups, states = B.shape[2:]
        rows = min(most, tile(self.length))
        self.tiles = triton.cdiv(self.length, rows)
        self.sizes = self.length, self.heads, self.groups, states, width
        self.options: dict[str, Any] = {
            "Q": rows,
            "STATES": tile(states),
            "WIDTH": tile(width),
            "PRECISION": precision(x),
            "num_warps": 8,
            "num_stages": 1,
        }

    def gathered(self, x: Tensor, m: Tensor | None, B: Tensor) -> Tensor:
        """The states, (B, H, N, P), in float32."""
        parts = triton.cdiv(self.tiles, _TILES)
        states = x.new_empty(self.batch, self.heads, parts, *self.sizes[-2:], dtype=torch.float32)
        strides = (*x.stride(), *_strides(m), *B.stride())
        start(
            triton_kernels.gather,
            (parts, self.batch * self.heads),
            x,
            x if m is None else m,
            B,
            states,
            *strides,
            *self.sizes,
            _TILES,
            HAS_M=m is not None,
            **self.options,
        )
        return states.sum(2) if parts > 1 else states[:, :, 0]


def _forward(x: Tensor, m: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    launch, y = _Launch(x, B, _FORWARD_ROWS), x.new_empty(x.shape)
    states = launch.gathered(x, m, B)
    start(triton_kernels.read, (launch.tiles, launch.batch * launch.heads),
        x, C, x if D is None else D.contiguous(), states, y, *x.stride(), *C.stride(), *y.stride(),
        *launch.sizes, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    return y


def _backward(
    dy: Tensor, x: Tensor, m: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None
) -> tuple[Tensor | None, ...]:
    launch = _Launch(x, B, _BACKWARD_ROWS)
    states, of_states = launch.gathered(x, m, B), launch.gathered(dy, None, C)
    dx, dm, dB, dC = (t.new_empty(t.shape) for t in (x, x[:0] if m is None else m, B, C))
    dD = x.new_empty(launch.batch, launch.heads, launch.tiles, dtype=torch.float32)
    strides = (*dy.stride(), *x.stride(), *_strides(m), *B.stride(), *C.stride())
    start(triton_kernels.gradients, (launch.tiles, launch.batch * launch.groups),
        dy, x, x if m is None else m, B, C, x if D is None else D.contiguous(), states, of_states, dx, dm, dB, dC, dD,
        *strides, *launch.sizes, HAS_M=m is not None, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    of_m, of_D = None if m is None else dm, None if D is None else dD.sum((0, 2)).to(D.dtype)
    return dx, of_m, dB, dC, of_D


_SIGNATURE = Signature(
    "Tensor x, Tensor? m, Tensor B, Tensor C, Tensor? D", plain=torch_impl.nc_ssd, result=lambda x, *others: dense(x)
)
nc_ssd = _SIGNATURE.bind("nc_ssd_triton", _forward, _backward)


@register_flop_formula(torch.ops.blockforge.nc_ssd_triton)
def _flops(x_shape: Any, m_shape: Any, B_shape: Any, *others: Any, **more: Any) -> int:
    """Of the two products, as a counter sees them in the standard operators."""
    batch, length, heads, width = x_shape
    return 2 * 2 * batch * length * heads * width * B_shape[-1]


def _strides(m: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if m is None else m.stride()

"""Non-causal state space duality on CUDA devices: gather the states, read them; the weights m and the skip D are
part of the two products. The backward pass gathers the states once more, and their gradients, which is the same
product with C and dy; then one kernel gives all other gradients. It keeps the inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor, library
from torch.utils.flop_counter import register_flop_formula

from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.gpu.launch import start
from blockforge.kernels.gpu.tiles import precision, tile
from blockforge.kernels.nc_ssd import torch_impl, triton_kernels

_FORWARD_ROWS, _BACKWARD_ROWS = 64, 32
"""Most positions in a tile: as many as registers hold (seen in what the compiler gives, not timed)."""
_TILES = 8
"""Tiles that a program gathers into one partial state."""
_TENSORS = "Tensor x, Tensor? m, Tensor B, Tensor C, Tensor? D"


def nc_ssd(x_BLHP: Tensor, m_BLH: Tensor | None, B_BLGN: Tensor, C_BLGN: Tensor, D_H: Tensor | None = None) -> Tensor:
    """See the package's `nc_ssd`."""
    y: Tensor = _operator(x_BLHP, m_BLH, B_BLGN, C_BLGN, D_H)
    return y


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


@library.custom_op("blockforge::nc_ssd_triton", mutates_args=(), schema=f"({_TENSORS}) -> Tensor")
def _operator(x: Tensor, m: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None) -> Tensor:
    launch, y = _Launch(x, B, _FORWARD_ROWS), x.new_empty(x.shape)
    states = launch.gathered(x, m, B)
    start(triton_kernels.read, (launch.tiles, launch.batch * launch.heads),
        x, C, x if D is None else D.contiguous(), states, y, *x.stride(), *C.stride(), *y.stride(),
        *launch.sizes, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    return y


@_operator.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    return x.new_empty(x.shape)


@library.custom_op(
    "blockforge::nc_ssd_triton_backward",
    mutates_args=(),
    schema=f"(Tensor dy, {_TENSORS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _derivative(
    dy: Tensor, x: Tensor, m: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    launch = _Launch(x, B, _BACKWARD_ROWS)
    states, of_states = launch.gathered(x, m, B), launch.gathered(dy, None, C)
    dx, dm, dB, dC = (t.new_empty(t.shape) for t in (x, x[:0] if m is None else m, B, C))
    dD = x.new_empty(launch.batch, launch.heads, launch.tiles, dtype=torch.float32)
    strides = (*dy.stride(), *x.stride(), *_strides(m), *B.stride(), *C.stride())
    start(triton_kernels.gradients, (launch.tiles, launch.batch * launch.groups),
        dy, x, x if m is None else m, B, C, x if D is None else D.contiguous(), states, of_states, dx, dm, dB, dC, dD,
        *strides, *launch.sizes, HAS_M=m is not None, HAS_D=D is not None, **launch.options
    )  # fmt: skip
    return dx, dm, dB, dC, x.new_empty(0) if D is None else dD.sum((0, 2)).to(D.dtype)


@_derivative.register_fake
def _(dy: Tensor, x: Tensor, m: Tensor | None, B: Tensor, C: Tensor, D: Tensor | None) -> Any:
    return tuple(t.new_empty(t.shape) for t in (x, x[:0] if m is None else m, B, C, x[:0, 0, 0, 0] if D is None else D))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # read once: a checkpoint computes them for one reading
    if is_asked_for_more(dy):
        return of_plain(torch_impl.nc_ssd, dy, *tensors)
    found = _derivative(dy, *tensors)
    return tuple(None if t is None else g for t, g in zip(tensors, found, strict=True))


_operator.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.blockforge.nc_ssd_triton)
def _flops(x_shape: Any, m_shape: Any, B_shape: Any, *others: Any, **more: Any) -> int:
    """Of the two products, as a counter sees them in the standard operators."""
    batch, length, heads, width = x_shape
    return 2 * 2 * batch * length * heads * width * B_shape[-1]


def _strides(m: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0) if m is None else m.stride()

"""Multi-head mixed convolution (SMT): each head of channels has a depth-wise convolution of a size of its own; then
channel c of every head is one group that is mixed.

Letters: B batch, H height, W width, C channels, n heads, k side of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere, needs_numba
from blockforge.kernels.gpu.tiles import needs_triton_in_float32
from blockforge.kernels.observers import is_watched

__all__ = ["LARGEST_SIDE", "MOST_HEADS", "MOST_OUTPUTS", "OPERATOR", "mixed_conv"]

LARGEST_SIDE, MOST_HEADS, MOST_OUTPUTS = 63, 16, 128
"""What the Triton kernels hold: of a kernel's side, of heads, and of outputs of one group."""
_MOST_VECTORS = 64
"""Outputs of one group that the loops of numba hold, each a vector of channels."""


def fits_numba(x: Tensor, *, outputs: int = 1, **facts: int) -> str | None:
    """Refuses what `needs_numba` refuses, float64, and more outputs of a group than are worth their code."""
    if why := needs_numba(x):
        return why
    if x.dtype == torch.float64:
        return "its loops compute in float32, the tensor is float64"
    return f"{outputs} outputs of a group, at most {_MOST_VECTORS}" if outputs > _MOST_VECTORS else None


def fits_triton(x: Tensor, *, side: int = 1, heads: int = 1, outputs: int = 1) -> str | None:
    """Refuses what `needs_triton_in_float32` refuses, and more heads or outputs of a group than registers hold."""
    if why := needs_triton_in_float32(x):
        return why
    limits = {"side": (side, LARGEST_SIDE), "heads": (heads, MOST_HEADS), "outputs of a group": (outputs, MOST_OUTPUTS)}
    large = [f"{size} {name}, at most {most}" for name, (size, most) in limits.items() if size > most]
    return f"too large for its kernels: {', '.join(large)}" if large else None


OPERATOR = Operator("mixed_conv", ("numba",), triton=fits_triton, numba=fits_numba, torch=anywhere, reference=anywhere)


def mixed_conv(
    x_BHWC: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    mix: tuple[Tensor, Tensor] | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """Depth-wise convolutions of several sizes side by side, and their aggregation:
    y[..., c * m + o] = sum over heads i of mix[c * m + o, i] * conv_i(head i of x)[..., c] + bias[c * m + o].

    Args:
        x_BHWC: the map; head i is the i-th of n equal parts of the channels.
        weights: of each head's convolution, (C / n, 1, k, k) with k odd, each its own; zero padding keeps the size.
        biases: of each head's convolution, (C / n).
        mix: weight (C / n * m, n, 1, 1) and bias (C / n * m) of a 1x1 convolution of C / n groups, each of which
            has channel c of every head; None: the heads interleaved, y[..., c * n + i] = conv_i(head i of x)[..., c].
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`, and standard operators
            where a mode of torch watches them, such as FlopCounterMode, which would not know others.

    Returns:
        y, (B, H, W, C / n * m), m = n without `mix`; of x's type.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: Scale-Aware Modulation Meet Transformer, section 3.1, https://arxiv.org/abs/2307.08579.
    """
    _check(x_BHWC, weights, biases, mix)
    if backend is None and not torch.compiler.is_compiling() and is_watched():
        backend = "torch"
    heads, width = len(weights), weights[0].shape[0]
    outputs = heads if mix is None else mix[0].shape[0] // width
    run = OPERATOR.pick(x_BHWC, backend, side=max(w.shape[-1] for w in weights), heads=heads, outputs=outputs)
    y: Tensor = run(x_BHWC, weights, biases, mix)
    return y


def _check(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], mix: tuple[Tensor, Tensor] | None) -> None:
    if x.ndim != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be (batch, height, width, channels), each but batch >= 1, not {tuple(x.shape)}")
    heads, channels = len(weights), x.shape[-1]
    if heads < 1 or channels % heads:
        raise ValueError(f"weights must be one kernel a head, and the heads divide {channels} channels, not {heads}")
    width = channels // heads
    for weight in weights:
        side = weight.shape[-1] if weight.ndim else 0
        if weight.shape != (width, 1, side, side) or side % 2 == 0:
            raise ValueError(f"each of weights must be ({width}, 1, k, k), k odd, not {tuple(weight.shape)}")
    if len(biases) != heads or any(bias.shape != (width,) for bias in biases):
        shapes = ", ".join(str(tuple(bias.shape)) for bias in biases)
        raise ValueError(f"biases must be {heads} of ({width},), not {shapes}")
    if mix is None:
        return
    weight, bias = mix
    hidden = weight.shape[0] if weight.ndim else 0
    if weight.shape != (hidden, heads, 1, 1) or hidden < 1 or hidden % width:
        raise ValueError(f"mix's weight must be (a multiple of {width}, {heads}, 1, 1), not {tuple(weight.shape)}")
    if bias.shape != (hidden,):
        raise ValueError(f"mix's bias must be ({hidden},), not {tuple(bias.shape)}")

"""Convolutions on a CPU whose dense kernel outweighs the map, as in the last stages of a pyramid for few images.

On a channels-last map torch first copies the kernel into that layout, and oneDNN then into its own. On an NCHW map only
oneDNN does; so the map is copied instead, and oneDNN gets some output channels at a time. Measured in
docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad

from blockforge.kernels.observers import is_plain

LARGE, OUTWEIGHS = 2**16, 2
"""The least weights of a kernel, and the least times the map's elements, that pay."""

BLOCK, BLOCK_OF_GRADIENT, LANES = 2**20, 2**16, 16
"""Weights that oneDNN gets at once; of how many it makes gradients at once, which stand beside the maps and theirs; and
the number that its output channels are a multiple of."""

_Sides = tuple[int, int]


def outweighs(weight: Tensor, x: Tensor) -> bool:
    """Whether a kernel is so much larger than the map that `by_channel_blocks` pays."""
    here = x.device.type == "cpu" and x.dtype == torch.float32
    captured = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return here and not captured and is_outweighed(x.numel(), weight.numel()) and is_plain(x, weight)


def is_outweighed(elements: int, weights: int) -> bool:
    """The sizes at which `by_channel_blocks` pays: the map's elements, of all images, and the kernel's weights."""
    return weights > max(LARGE, OUTWEIGHS * elements)


def by_channel_blocks(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None, stride: _Sides, padding: _Sides) -> Tensor:
    """The convolution of a map -> y_BHWC. The backward pass keeps the map, not its copy."""
    y: Tensor = _ByChannelBlocks.apply(x_BHWC, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return y


class _ByChannelBlocks(torch.autograd.Function):
    @staticmethod
    def forward(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None, stride: _Sides, padding: _Sides) -> Tensor:
        x_BCHW, channels = _nchw(x_BHWC), channels_at_once(weight[0].numel(), BLOCK)
        weights = weight.split(channels)
        biases = [None] * len(weights) if bias is None else bias.split(channels)
        maps = [F.conv2d(x_BCHW, w, b, stride, padding) for w, b in zip(weights, biases, strict=True)]
        return torch.cat([y.permute(0, 2, 3, 1) for y in maps], dim=-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.how = inputs[3:]

    @staticmethod
    def backward(ctx: Any, dy_BHWC: Tensor) -> tuple[Tensor | None, ...]:
        x_BHWC, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        dy_BCHW, dx, dw = _nchw(dy_BHWC), None, None
        if of_x:
            shape = x_BHWC.permute(0, 3, 1, 2).shape
            dx = grad.conv2d_input(shape, weight, dy_BCHW, *ctx.how).permute(0, 2, 3, 1)
        if of_weight:
            dw = _of_weight(_nchw(x_BHWC), weight, dy_BCHW, *ctx.how)
        return dx, dw, dy_BHWC.sum((0, 1, 2)) if of_bias else None, None, None


def _of_weight(x_BCHW: Tensor, weight: Tensor, dy_BCHW: Tensor, stride: _Sides, padding: _Sides) -> Tensor:
    dw, channels = torch.empty_like(weight), channels_at_once(weight[0].numel(), BLOCK_OF_GRADIENT)
    how = (stride, padding, (1, 1), False, (0, 0), 1)  # not dilated, nor transposed, one group
    for first in range(0, len(weight), channels):
        part = slice(first, first + channels)
        dy = dy_BCHW[:, part].contiguous()
        _, dw[part], _ = torch.ops.aten.convolution_backward(dy, x_BCHW, weight[part], None, *how, (False, True, False))
    return dw


def _nchw(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2).contiguous()


def channels_at_once(weights: int, most: int) -> int:
    """Output channels, of so many weights each, that have at most so many."""
    return max(1, most // weights // LANES) * LANES

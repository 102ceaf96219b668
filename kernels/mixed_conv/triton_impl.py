"""Multi-head mixed convolution on CUDA devices: a program convolves a tile of every head and mixes it in registers, so
that neither the convolved heads nor their interleaving exist in memory. The backward pass computes the convolutions
once more; the gradient of the convolved heads is the one map that it writes between.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from blockforge.kernels.gpu.launch import start
from blockforge.kernels.mixed_conv import operators, triton_kernels

_CHANNELS = 32
"""Most channels of a head in a tile: rows of memory of 64 bytes at least."""
_ELEMENTS, _OUTPUTS = 1024, 4096
"""Most elements of a tile, and most outputs of it: what 4 warps hold in registers beside the pointers (seen in what
the compiler gives, not timed)."""
_PARTS, _TILES = 512, 4
"""Partial sums of a gradient at most, and tiles that each of them adds up at least."""


class Launch:
    """Sizes that the kernels of a call share."""

    def __init__(self, x: Tensor, weight: Tensor, mix: Tensor | None, sides: list[int]) -> None:
        batch, self.height, self.width = x.shape[:3]
        self.batch, self.heads, self.channels = batch, len(sides), weight.shape[1]
        self.outputs = self.heads if mix is None else mix.shape[0] // self.channels
        self.block = min(_CHANNELS, triton.next_power_of_2(self.channels))
        self.blocks = triton.cdiv(self.channels, self.block)
        self.kernels = {"N": self.heads, "SIDES": sum(side << (6 * i) for i, side in enumerate(sides))}
        self.wide, outputs = self._tile(_ELEMENTS), triton.next_power_of_2(self.outputs)
        self.mixing = self._tile(min(_ELEMENTS, _OUTPUTS // outputs)) | {"OUTS": outputs, "HAS_MIX": mix is not None}

    def _tile(self, elements: int) -> dict[str, int]:
        """Its sides: nearly a square, no longer than the map."""
        positions = max(1, elements // self.block)
        cols = min(triton.next_power_of_2(self.width), 1 << positions.bit_length() // 2)
        rows = min(triton.next_power_of_2(self.height), positions // cols)
        return {"ROWS": rows, "COLS": cols, "CHANNELS": self.block, "num_warps": 4, **self.kernels}

    def tiles(self, tile: dict[str, int]) -> int:
        return self.batch * triton.cdiv(self.height, tile["ROWS"]) * triton.cdiv(self.width, tile["COLS"])

    def parts(self, tile: dict[str, int]) -> tuple[int, int, int]:
        """Partial sums, all tiles, and how many of them go into each sum."""
        tiles = self.tiles(tile)
        each = max(_TILES, triton.cdiv(tiles, _PARTS))
        return triton.cdiv(tiles, each), tiles, each


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, mix_bias: Tensor | None, sides: list[int]
) -> Tensor:
    """See `operators`."""
    launch = Launch(x, weight, mix, sides)
    y = x.new_empty(*x.shape[:3], launch.channels * launch.outputs)
    start(triton_kernels.mixed, (launch.tiles(launch.mixing), launch.blocks),
        x, weight, bias, *(x if t is None else t for t in (mix, mix_bias)), y, *x.stride(),
        launch.height, launch.width, launch.channels, launch.outputs, **launch.mixing,
    )  # fmt: skip
    return y


def backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor | None, mix_bias: Tensor | None, sides: list[int]
) -> tuple[Tensor, ...]:
    """See `operators`."""
    launch = Launch(x, weight, mix, sides)
    height, width, channels = launch.height, launch.width, launch.channels
    ds, dx = x.new_empty(x.shape, dtype=torch.float32), x.new_empty(x.shape)
    parts, tiles, each = launch.parts(launch.mixing)
    dmix = weight.new_empty(parts, channels * launch.outputs if mix is not None else 0, launch.heads)
    start(triton_kernels.mixing_gradients, (parts, launch.blocks, launch.heads),
        dy, x, weight, bias, x if mix is None else mix, ds, dmix, *dy.stride(), *x.stride(),
        height, width, channels, launch.outputs, tiles, each, **launch.mixing,
    )  # fmt: skip
    start(
        triton_kernels.input_gradient,
        (launch.tiles(launch.wide), launch.blocks, launch.heads),
        ds,
        weight,
        dx,
        height,
        width,
        channels,
        **launch.wide,
    )
    parts, tiles, each = launch.parts(launch.wide)
    dweight = weight.new_empty(parts, *weight.shape)
    start(
        triton_kernels.kernel_gradients,
        (parts, launch.blocks, launch.heads),
        ds,
        x,
        dweight,
        *x.stride(),
        height,
        width,
        channels,
        weight.shape[0],
        tiles,
        each,
        **launch.wide,
    )
    return dx, dweight.sum(0), dmix.sum(0), dy.sum((0, 1, 2), dtype=torch.float32)


mixed_conv = operators.differentiable("triton", forward, backward)


@register_flop_formula(torch.ops.blockforge.mixed_conv_triton)
def _flops(x_shape: Any, weight_shape: Any, bias_shape: Any, mix_shape: Any, *others: Any, **more: Any) -> int:
    """Of the convolutions, as a counter sees them in the standard operators."""
    batch, height, width, _ = x_shape
    mixing = 0 if mix_shape is None else mix_shape[0] * mix_shape[1]
    return 2 * batch * height * width * (weight_shape[0] * weight_shape[1] + mixing)

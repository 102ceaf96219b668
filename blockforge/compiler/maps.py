"""Maps as they stand between modules: what a long skip reads so that it arrives as the main path does, and what is
beside extra tokens. The compiler and the built model ask the same functions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from blockforge.blocks.base import AnyOp, Reducing, Shape
from blockforge.blocks.strides import stride_of
from blockforge.errors import OpError

FAR = 2**12
"""Of an operator's stride: a side that is large beside every kernel, where only the rounding is left to see."""

Rounding = tuple[bool, ...]
"""Of a stride of s, for each rest of a side divided by s: whether what is left over makes one more position."""


def rounding(op: AnyOp, shape: Shape, dim: int) -> Rounding | None:
    """How a block rounds the sides of maps that its stride does not divide; None: it has no stride, or none that such
    a map has room for."""
    try:
        stride = op.total_stride(shape, dim) if isinstance(op, Reducing) else stride_of(op, shape, dim)
        if not 1 <= stride <= max(shape.height, shape.width):
            return None
        sides = (FAR * stride + rest for rest in range(stride))
        return tuple(op.out_shape(Shape(side, side, shape.dim), dim).height > FAR for side in sides)
    except (OpError, ZeroDivisionError):  # made for maps of one size
        return None


def fitted(side: int, target: int, up: Rounding) -> int:
    """How many rows a block is given for it to give `target`: those that there are, or as many as that takes."""
    stride = len(up)
    return side if side // stride + up[side % stride] == target else target * stride


def fit_map(x: Tensor, height: int, width: int, up: Rounding) -> Tensor:
    """x_BHWC for a block on a long skip, which is to give a map of height x width: with zeros right and below where
    the main path rounded up and the block rounds down, and without the last rows where it is the other way round.

    Raises: OpError where rounding is not the difference.
    """
    sides = x.shape[1:3]
    rows, columns = (fitted(side, to, up) for side, to in zip(sides, (height, width), strict=True))
    if max(abs(rows - sides[0]), abs(columns - sides[1])) >= len(up):
        text = f"a long skip of stride {len(up)} brings a map of {sides[0]}x{sides[1]} to one of {height}x{width}"
        raise OpError(text, hint="its blocks must shrink maps as the stages do that it passes", code="skip-shape")
    x = x[:, :rows, :columns]
    below, right = max(0, rows - sides[0]), max(0, columns - sides[1])
    return F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x.contiguous()


def beside_map(x_B1LC: Tensor, prefix: int) -> Tensor:
    """The `prefix` tokens beside a map, (B, prefix, C)."""
    return x_B1LC[:, 0, :prefix]


def token_map(x_B1LC: Tensor, prefix: int, height: int, width: int) -> Tensor:
    """The map beside `prefix` tokens, x_BHWC, without them."""
    return x_B1LC[:, 0, prefix:].unflatten(1, (height, width))

"""Strides of blocks, which their shapes tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockforge.blocks.shapes import Shape

if TYPE_CHECKING:
    from blockforge.blocks.base import AnyOp

VERY_FAR = 2**20
"""Sides whose difference leaves of a stride's rounding nothing to see."""


def stride_of(op: AnyOp, shape: Shape, dim: int) -> int:
    """How many positions of what a block reads, along a side, stand for one of what it gives; 0: it makes maps larger.

    Raises: ZeroDivisionError where what it gives does not depend on what it reads. OpError where it is made for maps of
        one size.
    """
    near, far = (op.out_shape(Shape(side, side, shape.dim), dim).height for side in (VERY_FAR, 2 * VERY_FAR))
    return round(VERY_FAR / (far - near))

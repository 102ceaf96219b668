"""Which way a linear layer goes in float32 on a CPU, by its sizes alone, and what that way holds beside its result. The
code that runs asks here, and so do costs."""

from __future__ import annotations

LEAST_WORK = 2**21
"""Multiply-adds from which oneDNN makes up for the 20 microseconds that its call takes longer."""

MANY = 2**13
"""Positions, of all images together, from which the weights are worth copying into oneDNN's own order, as a
convolution does on every call."""

ROWS, LANES = 64, 16
"""Vectors that oneDNN's product copies at once, and the number that their channels are a multiple of."""


def is_small(work: int) -> bool:
    """Whether the BLAS runs it."""
    return work < LEAST_WORK


def is_convolved(positions: int) -> bool:
    """Whether a map of so many positions is convolved by a 1x1 kernel; else it is a product of matrices."""
    return positions >= MANY


def scratch(positions: int, in_chs: int, out_chs: int, *, on_map: bool = True) -> int:
    """Bytes that the layer holds beside its result in inference by oneDNN; `F.linear` holds none.

    Args:
        positions: of all images together.
        on_map: whether the vectors are those of a map; only a map is convolved.
    """
    if is_small(positions * in_chs * out_chs):
        return 0
    if on_map and is_convolved(positions):
        return 4 * in_chs * out_chs
    return 4 * ROWS * _block(in_chs)


def _block(in_chs: int) -> int:
    """Channels that oneDNN's product copies at once, as measured."""
    if in_chs >= 512:
        return 1024 if in_chs > 1024 else 512
    return -(-in_chs // LANES) * LANES

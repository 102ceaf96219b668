"""What a block computes in inference, where that is a convolution: the algebra by which several become one.

A linear layer is a convolution of one position, a norm by running statistics or a scale one that sees each channel
alone. Two that follow each other, or that read one map and are added, are one again: here in their sizes, in
`compiler.deploy.tensors` in their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from blockforge.blocks.sliding import Pair

ONE = (1, 1)


@dataclass(frozen=True)
class Filter:
    """The sizes of a convolution.

    Attributes:
        padding: zeros on both sides; None: as TensorFlow pads, which depends on the map.
        bias: whether it adds a term to each channel.
    """

    in_chs: int
    out_chs: int
    kernel: Pair = ONE
    stride: Pair = ONE
    padding: Pair | None = (0, 0)
    dilation: Pair = ONE
    groups: int = 1
    bias: bool = False

    @property
    def is_affine(self) -> bool:
        """Whether each value is multiplied by a number of its channel, and a number is added: nothing else."""
        return self.in_chs == self.out_chs == self.groups and self.is_pointwise

    @property
    def is_pointwise(self) -> bool:
        return self.kernel == self.stride == ONE and self.padding == (0, 0)


def affine(dim: int, *, bias: bool) -> Filter:
    """A factor for each channel, and a term."""
    return Filter(dim, dim, groups=dim, bias=bias)


def identity(dim: int) -> Filter:
    """What changes nothing."""
    return affine(dim, bias=False)


def after(first: Filter, second: Filter) -> Filter | None:
    """Both in a row, one of them affine; None: that is no convolution.

    What the first adds, the second would not find in its padding: there it reads zeros.
    """
    if second.is_affine:
        return replace(first, bias=first.bias or second.bias)
    if first.is_affine and (second.padding == (0, 0) or not first.bias):
        return replace(second, bias=first.bias or second.bias)
    return None


class Placing(NamedTuple):
    """Where a kernel lies in a larger one: its first row and column there."""

    row: int
    column: int


def total(filters: Sequence[Filter]) -> tuple[Filter, tuple[Placing, ...]] | None:
    """The sum of convolutions of one map, and where the kernel of each lies in it; None: it is none.

    Kernels of other sizes are put around zeros where they read the same positions; fewer groups than the coarsest one's
    see zeros beyond their own.
    """
    first = filters[0]
    groups = min(f.groups for f in filters)
    if any((f.in_chs, f.out_chs, f.stride) != (first.in_chs, first.out_chs, first.stride) for f in filters):
        return None
    if any(f.groups % groups for f in filters):
        return None
    rows, columns = _along(filters, 0), _along(filters, 1)
    if rows is None or columns is None:
        return None
    whole = Filter(
        first.in_chs, first.out_chs, (rows.side, columns.side), first.stride, (rows.padding, columns.padding),
        (rows.step, columns.step), groups, any(f.bias for f in filters),
    )  # fmt: skip
    return whole, tuple(map(Placing, rows.begins, columns.begins))


class _Axis(NamedTuple):
    """Along one axis: the side of a kernel, its padding and dilation, and where each of its parts begins."""

    side: int
    padding: int
    step: int
    begins: tuple[int, ...]


def _along(filters: Sequence[Filter], axis: int) -> _Axis | None:
    """The kernel of a sum along one axis; None: its parts do not read the same positions."""
    steps = {f.dilation[axis] for f in filters if f.kernel[axis] > 1} or {1}
    paddings = [f.padding[axis] for f in filters if f.padding is not None]
    if len(steps) > 1 or len(paddings) < len(filters):
        return None
    (step,), padding = steps, max(paddings)
    if any((padding - own) % step for own in paddings):
        return None
    begins = tuple((padding - own) // step for own in paddings)
    side = max(begin + f.kernel[axis] for begin, f in zip(begins, filters, strict=True))
    reach = {step * (f.kernel[axis] - 1) - 2 * own for f, own in zip(filters, paddings, strict=True)}
    if step * (side - 1) - 2 * padding not in reach:  # of maps of another size it would give others than its parts
        return None
    return _Axis(side, padding, step, begins)

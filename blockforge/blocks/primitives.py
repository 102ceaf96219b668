"""Cost of the operations that blocks are made of. One multiply-add counts once; biases add no MACs.

These agree with half of what torch's FlopCounterMode counts, operation by operation.
"""

from __future__ import annotations

from blockforge.blocks.base import Cost, Scratch, Shape
from blockforge.kernels.costs import costed
from blockforge.kernels.cpu.memory import ConvScratch, GroupedScratch, LinearScratch


def linear(
    in_chs: int, out_chs: int, positions: int, *, bias: bool = True, on_map: bool = True, alive: int | None = None
) -> Cost:
    """A linear layer, or a 1x1 convolution, at each of `positions`.

    Args:
        on_map: whether these are a map's (B, H, W).
        alive: see `Scratch`.
    """
    by_onednn = (LinearScratch(positions, in_chs, out_chs, on_map, alive),) if costed() != "torch" else ()
    return Cost(in_chs * out_chs + bias * out_chs, in_chs * out_chs * positions, 0, frozenset(by_onednn))


def conv(
    in_chs: int,
    out_chs: int,
    kernel: tuple[int, int],
    positions: int,
    *,
    read: int | None = None,
    groups: int = 1,
    bias: bool = True,
    dilation: int = 1,
    alive: int | None = None,
) -> Cost:
    """A 2D convolution that gives `positions` outputs, of a map of `read` positions (default: as many).
    `dilation`: the larger one of the two sides; `alive`: see `Scratch`."""
    if kernel == (1, 1) and groups == 1 and read in (None, positions):
        return linear(in_chs, out_chs, positions, bias=bias, alive=alive)
    weights = in_chs // groups * out_chs * kernel[0] * kernel[1]
    maps = (positions if read is None else read, positions, in_chs, out_chs)
    scratch: frozenset[Scratch] = frozenset()  # the kernels of one filter a channel are small
    if groups == 1:
        scratch = frozenset((ConvScratch(*maps, kernel, alive, dilation > 1),))
    elif not groups == in_chs == out_chs:
        scratch = frozenset((GroupedScratch(*maps, kernel, alive, groups),))
    return Cost(weights + bias * out_chs, weights * positions, 0, scratch)


def dwconv(dim: int, kernel: tuple[int, int], positions: int, *, bias: bool = True) -> Cost:
    """A depth-wise 2D convolution: one filter a channel."""
    return conv(dim, dim, kernel, positions, groups=dim, bias=bias)


def norm(dim: int) -> Cost:
    """A normalisation with learnt scale and bias. Elementwise work counts no MACs."""
    return Cost(2 * dim)


def matmul(m: int, k: int, n: int, batch: int = 1) -> Cost:
    """`batch` products of (m, k) by (k, n)."""
    return Cost(0, m * k * n * batch)


def scan(dim: int, d_state: int, positions: int) -> Cost:
    """A scan by convention: 9 L D N + L D multiply-adds for D channels of N states, whatever way computes it."""
    macs = 9 * positions * dim * d_state + positions * dim
    return Cost(0, macs, macs)


def conv_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output length of a convolution along one side."""
    return (size + 2 * padding - kernel) // stride + 1


def conv_shape(shape: Shape, dim: int, kernel: int, stride: int, padding: int | None = None) -> Shape:
    """The map of width `dim` that a convolution gives; `padding` defaults to half the kernel."""
    pad = kernel // 2 if padding is None else padding
    return Shape(conv_size(shape.height, kernel, stride, pad), conv_size(shape.width, kernel, stride, pad), dim)

"""How blocks call their leaves, the modules of torch's classes that they are made of.

Two rules, so that whatever finds leaves by their class, hooks them, wraps them or puts others in their place works here
as everywhere:

- A leaf takes and gives what its class in torch takes and gives. Maps are x_BHWC, a convolution or a batch norm works
  on x_BCHW: who holds such a leaf permutes around the call, which copies nothing. The place of a leaf keeps its layout,
  whatever stands there later.
- A leaf is called. Only one that is still as it was made, which nobody watches, may be computed around (`untouched`, of
  `blockforge.kernels.cpu`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from blockforge.blocks.base import Layout
from blockforge.torch_private import POOLS, BatchOrInstanceNorm, Conv

TAKE_NCHW = (Conv, BatchOrInstanceNorm, nn.GroupNorm, *POOLS)
"""Classes of torch that take channels in the second axis."""


def layout_of(leaf: nn.Module) -> Layout:
    """What the leaf takes and gives by its class."""
    return "NCHW" if isinstance(leaf, TAKE_NCHW) else "NHWC"


def on_nchw(leaf: Callable[[Tensor], Tensor], x_BHWC: Tensor) -> Tensor:
    """What a leaf on x_BCHW makes of a map, as y_BHWC."""
    return leaf(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def on_map(leaf: Callable[[Tensor], Tensor], x_BHWC: Tensor, layout: Layout) -> Tensor:
    """What a leaf at a place of this layout makes of a map, as y_BHWC."""
    return on_nchw(leaf, x_BHWC) if layout == "NCHW" else leaf(x_BHWC)


def bias_of(linear: nn.Module, x: Tensor) -> Tensor | None:
    """The bias of a linear layer that is called for x, for a block that adds it once more. Where another module stands
    in its place: what that makes of zeros."""
    bias = getattr(linear, "bias", None)
    if isinstance(bias, Tensor) or isinstance(linear, nn.Linear):
        return bias
    of_zeros: Tensor = linear(x.new_zeros(1, x.shape[-1]))[0]
    return of_zeros

"""Group strip mixing (Strip-MLP): whole rows, or columns, mixed with their neighbours in groups of channels.

Letters: B batch, H height, W width, C channels, G groups, L positions of a line. A line is a row or a column.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere
from blockforge.kernels.gpu.tiles import needs_triton_in_float32

__all__ = ["OPERATOR", "Axis", "strip_mix"]

OPERATOR = Operator("strip_mix", triton=needs_triton_in_float32, torch=anywhere, reference=anywhere)

Axis = Literal["rows", "columns"]


def strip_mix(
    x_BHWC: Tensor,
    pos_HWC: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    axis: Axis,
    beside_BHWC: Tensor | None = None,
    beside_first: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Each position of a line becomes a sum over all positions of that line and of the lines next to it.

    With axis rows, for channel c of group g = c mod G:

        y[h, w, c] = bias[g L + w] + sum over k, v of weight[g L + w, v, 0, k] (x + pos)[h + k - strip // 2, v, c]

    Lines beyond the map are 0. The channels of a group, every G-th one, share weights.

    Args:
        x_BHWC: the map.
        pos_HWC: added to every image of it first.
        weight: (G * L, L, 1, strip), that of the grouped convolution that has a line's positions as channels. L is
            W for rows and H for columns, G divides C, strip is odd.
        bias: (G * L).
        axis: whether lines are rows or columns.
        beside_BHWC: a map to join with y along the channels, for a linear layer that fuses the two.
        beside_first: whether its channels come before y's.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns:
        y_BHWC, or (B, H, W, 2 * C) with a map beside it, of x's type. Sums are kept in float32 at least.

    Raises: ValueError if the shapes do not fit or there is no such axis; KernelError if the backend cannot run it.
    Reference: Strip-MLP, ICCV 2023, https://arxiv.org/abs/2307.11458, section 3.2.
    """
    _check(x_BHWC, pos_HWC, weight, bias, axis, beside_BHWC)
    run = OPERATOR.pick(x_BHWC, backend)
    options = {"axis": axis, "beside_BHWC": beside_BHWC, "beside_first": beside_first}
    y: Tensor = run(x_BHWC, pos_HWC, weight, bias, **options)
    return y


def _check(x: Tensor, pos: Tensor, weight: Tensor, bias: Tensor, axis: str, beside: Tensor | None) -> None:
    if axis not in ("rows", "columns"):
        raise ValueError(f"axis must be rows or columns, not {axis!r}")
    if x.ndim != 4:
        raise ValueError(f"x must be (batch, height, width, channels), not {tuple(x.shape)}")
    length, channels = x.shape[1 if axis == "columns" else 2], x.shape[3]
    fits = weight.ndim == 4 and weight.shape[1:3] == (length, 1) and weight.shape[3] % 2
    groups = weight.shape[0] // length if fits else 0
    if not fits or not groups or weight.shape[0] != groups * length or channels % groups:
        text = f"(groups * {length}, {length}, 1, strip), groups that divide {channels} channels and an odd strip"
        raise ValueError(f"weight must be {text}, not {tuple(weight.shape)}")
    wanted = {"pos": (pos, x.shape[1:]), "bias": (bias, weight.shape[:1]), "beside": (beside, x.shape)}
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must be {tuple(shape)}, not {tuple(tensor.shape)}")

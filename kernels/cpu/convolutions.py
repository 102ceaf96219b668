"""Convolutions of channels-last maps, by the ways that are fast on a CPU.

Letters: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.kernels.cpu.channel_blocks import by_channel_blocks, outweighs
from blockforge.kernels.dwconv import dwconv
from blockforge.kernels.linear import linear

_Sides = tuple[int, int]


def conv2d(
    x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, stride: _Sides, padding: _Sides, groups: int,
    kernel_size: _Sides,
) -> Tensor:  # fmt: skip
    """`F.conv2d`. A kernel of one position is a linear layer, and one that outweighs the map goes some channels at a
    time. Where gradients are kept the result is channels-last whatever the input was.

    Args:
        kernel_size: the weight's; in a traced graph its shape is no number.
    """
    if torch.compiler.is_exporting():
        return _channels_last(F.conv2d(x_BCHW, weight, bias, stride, padding, 1, groups))
    if not torch.is_grad_enabled() and _is_one(x_BCHW, 1):
        x_BCHW = _of_one_channel(x_BCHW)
    if kernel_size == (1, 1):
        return _conv1x1(x_BCHW, weight, bias, stride, padding, groups)
    if groups == 1 and outweighs(weight, x_BCHW):
        y_BHWC = by_channel_blocks(x_BCHW.permute(0, 2, 3, 1), weight, bias, stride, padding)
        return y_BHWC.permute(0, 3, 1, 2)
    return _channels_last(F.conv2d(x_BCHW, weight, bias, stride, padding, 1, groups))


def _conv1x1(
    x_BCHW: Tensor, weight: Tensor, bias: Tensor | None, stride: _Sides, padding: _Sides, groups: int
) -> Tensor:
    """What a strided kernel reads is taken out first: oneDNN's backward of the strided one writes out of bounds on
    narrow channels-last maps (uxlfoundation/oneDNN#6035)."""
    read_BHWC = _read_by_1x1(x_BCHW.permute(0, 2, 3, 1), stride, padding)
    if _is_one(read_BHWC, -1) or (not torch.is_grad_enabled() and _is_unseen(x_BCHW, read_BHWC, stride, padding)):
        read_BHWC = read_BHWC.contiguous()  # see `_of_one_channel`
    if groups == 1 and read_BHWC.is_contiguous():
        return linear(read_BHWC, weight.flatten(1), bias).permute(0, 3, 1, 2)
    dilation = dilation_of_1x1(x_BCHW)
    return _channels_last(F.conv2d(read_BHWC.permute(0, 3, 1, 2), weight, bias, 1, 0, dilation, groups))


def _is_unseen(x_BCHW: Tensor, read_BHWC: Tensor, stride: _Sides, padding: _Sides) -> bool:
    """Whether torch takes what a strided kernel reads of a channels-last map for no such map: where its last step leads
    beyond the map, as of odd sides. It would convolve it into NCHW. See `sliding.Window.reads_beyond`."""
    if stride == (1, 1) or any(padding) or torch.jit.is_tracing():
        return False
    (height, width), (rows, columns) = x_BCHW.shape[2:], read_BHWC.shape[1:3]
    return bool(rows * stride[0] > height or columns * stride[1] > width * stride[0])


def _is_one(x: Tensor, axis: int) -> bool:
    """Whether an axis has the length 1; in a traced graph no length is a number."""
    return not torch.jit.is_tracing() and x.shape[axis] == 1


def _of_one_channel(x_B1HW: Tensor) -> Tensor:
    """A map of one channel with the strides of a channels-last one. Its own may be those of either layout, and what
    torch takes for NCHW it convolves into NCHW, which every layer behind would copy."""
    return x_B1HW.squeeze(1).unsqueeze(-1).contiguous().permute(0, 3, 1, 2)


def _channels_last(y_BCHW: Tensor) -> Tensor:
    """An image stays NCHW where gradients are kept, see `image_map`, and torch's result is like its input."""
    if not torch.is_grad_enabled():
        return y_BCHW
    return y_BCHW.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _read_by_1x1(x_BHWC: Tensor, stride: _Sides, padding: _Sides) -> Tensor:
    """The positions that a 1x1 kernel reads, and zeros for those in the padding."""
    if not any(padding):
        return x_BHWC if stride == (1, 1) else x_BHWC[:, :: stride[0], :: stride[1]]
    first = [-(-p // s) * s - p for p, s in zip(padding, stride, strict=True)]  # the first that is not padding
    inner = x_BHWC[:, first[0] :: stride[0], first[1] :: stride[1]]
    pads: list[int] = []
    for axis in (1, 0):  # F.pad counts from the last axis
        step, pad = stride[axis], padding[axis]
        before, read = -(-pad // step), (x_BHWC.shape[1 + axis] + 2 * pad - 1) // step + 1
        pads += [before, read - before - inner.shape[1 + axis]]
    return F.pad(inner, (0, 0, *pads))


def add_dwconv(conv: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """`x + conv(x)` of a depth-wise convolution of the map's size, with the identity in the kernel's centre: one pass
    over the map in place of two.

    In half precision the sum 1 + weight would round the weight away, so there it is two passes.
    """
    if x_BCHW.dtype not in (torch.float32, torch.float64):
        y: Tensor = x_BCHW + conv(x_BCHW)
        return y
    height, width = conv.kernel_size
    centre = F.pad(conv.weight.new_ones(1, 1, 1, 1), (width // 2, width // 2, height // 2, height // 2))
    return dwconv(x_BCHW.permute(0, 2, 3, 1), conv.weight + centre, conv.bias).permute(0, 3, 1, 2)


def dilation_of_1x1(x: Tensor) -> int:
    """A dilation is without effect on a 1x1 kernel; on a CPU it keeps torch from paths that are many times
    slower, its BLAS with one thread and its own loops over the groups (measured: docs/performance.md). Others
    that run an exported graph have no such paths."""
    return 2 if x.device.type == "cpu" and not torch.compiler.is_exporting() else 1

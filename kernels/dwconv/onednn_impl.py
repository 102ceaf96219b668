"""A depth-wise convolution on a CPU whose gradients are depth-wise convolutions too.

oneDNN's own gradient of the weights is vectorised for kernels up to 3 wide. For wider ones on a channels-last map it
fills each channel up to a block of 16 x 16, 256 times its one filter, and takes 1 to 90 times as long as what is
here: see the README.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from blockforge.kernels.dwconv import torch_impl

WIDEST = 3
"""Of the kernels that oneDNN's gradient of the weights is made for."""

BAND = 2**17
"""Elements of a map that the gradient of the weights reads at once: half a megabyte, which stays in the cache, and
whose copies, two of each operand in oneDNN's own order, are small."""

FEWEST = 4
"""Images that are worth laying side by side as the channels of one: a small convolution is more call than work."""


def dwconv(x_BHWC: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See the package's `dwconv`."""
    if weight.shape[3] <= WIDEST or not torch.is_grad_enabled():
        return torch_impl.dwconv(x_BHWC, weight, bias)
    y: Tensor = _Depthwise.apply(x_BHWC.permute(0, 3, 1, 2), weight, bias)  # type: ignore[no-untyped-call]
    return y.permute(0, 2, 3, 1).contiguous()


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolved(x_BCHW, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, dy_BCHW: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        dw = _of_weight(x_BCHW, dy_BCHW, weight) if of_weight else None  # first: it copies for a while
        dx = _convolved(dy_BCHW, weight.flip(2, 3)) if of_x else None
        return dx, dw, dy_BCHW.sum((0, 2, 3)) if of_bias else None


def _convolved(x_BCHW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    h, w = weight.shape[2:]
    return conv2d(x_BCHW, weight, bias, padding=(h // 2, w // 2), groups=weight.shape[0])


def _of_weight(x_BCHW: Tensor, dy_BCHW: Tensor, weight: Tensor) -> Tensor:
    """The convolution of x with dy as the kernel, some images or some rows of one at a time; all add up."""
    (images, _, height, _), size = x_BCHW.shape, x_BCHW.shape[1:].numel()
    together, rows = BAND // size, -(-height // -(-size // BAND))
    if together < FEWEST:
        together = 1
    dw = torch.zeros_like(weight)
    for image, first in itertools.product(range(0, images, together), range(0, height, rows)):
        x, dy = x_BCHW[image : image + together], dy_BCHW[image : image + together]
        dw = dw + _of_rows(x, dy, weight.shape, first, min(first + rows, height))
    return dw


def _of_rows(x: Tensor, dy: Tensor, shape: tuple[int, ...], first: int, end: int) -> Tensor:
    """What the rows of dy from `first` to `end` add."""
    channels, _, h, w = shape
    reach = h // 2
    above, below = max(0, reach - first), max(0, end + reach - x.shape[2])  # rows of padding
    padded = max(above, below)  # a convolution pads on both sides alike
    read, kernel = _as_one(x[:, :, max(0, first - reach) : end + reach]), _as_one(dy[:, :, first:end]).transpose(0, 1)
    if kernel.shape[2:] == (1, 1):  # with one image and thread torch takes a channel at a time
        of_rows = pad(read * kernel.transpose(0, 1), (w // 2, w // 2, padded, padded))
    else:
        of_rows = conv2d(read, kernel, padding=(padded, w // 2), groups=kernel.shape[0])
    of_rows = of_rows[:, :, padded - above : padded - above + h]
    return (of_rows.unflatten(1, (-1, channels)).sum(1) if len(x) > 1 else of_rows).transpose(0, 1)


def _as_one(x_BCHW: Tensor) -> Tensor:
    """One image with the channels of all, which one image is."""
    if len(x_BCHW) == 1:
        return x_BCHW
    return x_BCHW.permute(2, 3, 0, 1).flatten(2).unsqueeze(0).permute(0, 3, 1, 2)

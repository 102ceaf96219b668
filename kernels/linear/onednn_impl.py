"""A linear layer on a CPU by oneDNN, which uses the widest vectors of any processor. The BLAS behind `F.linear` does
not on some. Two ways lead there: the operator that torch's own compiler calls, and the 1x1 convolution that the layer
is. Which one pays was measured: see the README.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, library

from blockforge.kernels.cpu.convolutions import dilation_of_1x1
from blockforge.kernels.derivatives import is_asked_for_more
from blockforge.kernels.linear.ways import is_convolved, is_small
from blockforge.torch_private import onednn_linear


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See the package's `linear`."""
    if x.ndim == 1 or is_small(x.numel() * weight.shape[0]):
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():
        y: Tensor = _as_one_node(x, weight, bias)
        return y
    if x.ndim == 4 and is_convolved(x[..., 0].numel()):
        y = F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias, dilation=dilation_of_1x1(x))
        return y.permute(0, 2, 3, 1)
    if torch.is_grad_enabled():
        y = _Linear.apply(x.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
        return y.unflatten(0, x.shape[:-1])
    return onednn_linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    """oneDNN's product of matrices and its derivative, which is made of products."""

    @staticmethod
    def forward(x_PC: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn_linear(x_PC, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, dy_PD: Tensor) -> tuple[Tensor | None, ...]:
        x_PC, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        product = F.linear if is_asked_for_more(dy_PD) else onednn_linear
        db = dy_PD.sum(0) if of_bias else None  # in the order of what each needs beside its result
        dw = _of_weight(product, x_PC, dy_PD) if of_weight else None
        return product(dy_PD, weight.T) if of_x else None, dw, db


def _of_weight(product: Callable[[Tensor, Tensor], Tensor], x_PC: Tensor, dy_PD: Tensor) -> Tensor:
    """dy^T x. The product copies its first operand: the way with less to copy."""
    if dy_PD.numel() > x_PC.numel() + x_PC.shape[1] * dy_PD.shape[1]:
        return product(x_PC.T, dy_PD.T).T.contiguous()
    return product(dy_PD.T, x_PC.T)


def _unwritten(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _registered() -> Callable[..., Tensor]:
    """oneDNN's product as a node of compiled graphs, into which their compiler does not look: it would allow the
    operator itself only for weights that it may keep a copy of."""
    schema = "(Tensor x, Tensor weight, Tensor? bias) -> Tensor"
    operator = library.custom_op("blockforge::linear_onednn", onednn_linear, mutates_args=(), schema=schema)
    operator.register_fake(_unwritten)
    return operator


_as_one_node = _registered()

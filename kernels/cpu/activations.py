"""Activations in their input's memory in inference, for inputs that nobody else holds.

The hidden map of a feed-forward network is the largest of a model. A second one for the activation's result is memory
that the system must hand out and clear page by page: at batch 8 that costs more than the activation itself
(measured: docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.kernels.observers import untouched

_INPLACE: dict[type, Callable[[Any, Tensor], Tensor]] = {
    nn.GELU: lambda act, x: torch.ops.aten.gelu_.default(x, approximate=act.approximate),
    nn.ReLU: lambda act, x: F.relu_(x),
    nn.SiLU: lambda act, x: F.silu(x, inplace=True),
    nn.ReLU6: lambda act, x: F.relu6(x, inplace=True),
    nn.Hardswish: lambda act, x: F.hardswish(x, inplace=True),
    nn.Hardsigmoid: lambda act, x: F.hardsigmoid(x, inplace=True),
    nn.Sigmoid: lambda act, x: x.sigmoid_(),
    nn.Tanh: lambda act, x: x.tanh_(),
    nn.LeakyReLU: lambda act, x: F.leaky_relu_(x, act.negative_slope),
    nn.ELU: lambda act, x: F.elu_(x, act.alpha),
    nn.Mish: lambda act, x: F.mish(x, inplace=True),
}


def overwrites(made: type) -> bool:
    """Whether modules of exactly this class can work in their input's memory: torch's that are known here, and those
    with a method `overwrite(x)`, which gives what calling them gives."""
    return made in _INPLACE or hasattr(made, "overwrite")


def activate(act: nn.Module, x: Tensor, own: bool) -> Tensor:
    """`act(x)`, in x's memory where that may be overwritten.

    Args:
        own: nobody else reads x: what made it is `untouched`, so that no hook has kept it, and gave new memory.
    """
    if own and may_overwrite() and overwrites(type(act)) and untouched(act, type(act)):
        return _INPLACE[type(act)](act, x) if type(act) in _INPLACE else act.overwrite(x)  # type: ignore[operator, no-any-return]
    if not getattr(act, "inplace", False):
        return act(x)  # type: ignore[no-any-return]
    if untouched(act, type(act)):
        return act(x if own else x.clone())  # type: ignore[no-any-return]
    act.inplace = False  # type: ignore[assignment]  # hooks of the backward pass hand it a view, not to be overwritten
    try:
        return act(x)  # type: ignore[no-any-return]
    finally:
        act.inplace = True  # type: ignore[assignment]


def may_overwrite() -> bool:
    """Whether a map may be overwritten: neither gradients need it, nor is a graph captured."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())

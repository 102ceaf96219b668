"""A linear layer: every vector of a map times one matrix.

Letters: B batch, H height, W width, C channels, D channels of the result, P positions, all but the last axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere, needs_onednn
from blockforge.kernels.observers import is_plain
from blockforge.torch_private import has_onednn_linear

__all__ = ["OPERATOR", "linear"]


def needs_its_product(x: Tensor, **facts: bool) -> str | None:
    """Refuses what `needs_onednn` refuses, and a torch that has no such product."""
    if has_onednn_linear():
        return needs_onednn(x, **facts)
    return "this torch has no linear layer of oneDNN"


OPERATOR = Operator("linear", onednn=needs_its_product, torch=anywhere, reference=anywhere)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """y = x W^T + b, as `torch.nn.functional.linear`.

    Args:
        x: the vectors, of C channels in the last axis.
        weight: (D, C).
        bias: (D,), or None.
        backend: what runs it; None: what is in force, see `blockforge.kernels.backend`.

    Returns: y, x's shape with D channels. Differentiable, twice.

    Raises: RuntimeError of torch if the shapes do not fit; KernelError if the backend cannot run it.
    """
    y: Tensor = OPERATOR.pick(x, backend, plain=_plain(x, weight, bias))(x, weight, bias)
    return y


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nobody looks at the operators. A compiled graph may have one of its own where it needs no derivative."""
    if torch.compiler.is_compiling():
        return not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
    return is_plain(x, weight, bias)

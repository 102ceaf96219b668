"""A linear layer: every vector of a map times one matrix.

Letters: B batch, H height, W width, C channels, D channels of the result, P positions, all but the last axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from blockforge.kernels.backends import Operator, anywhere

__all__ = ["OPERATOR", "linear"]


def needs_onednn(x: Tensor, *, plain: bool = True, **facts: object) -> str | None:
    """Refuses what is not float32 in the CPU's memory, and what somebody looks into."""
    if x.device.type != "cpu":
        return f"oneDNN runs on the CPU, the tensor is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"for {str(x.dtype).removeprefix('torch.')} torch's own way is as fast"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return "this torch was built without oneDNN"
    return None if plain else "autocast, a counter, a transform or a compiler looks at the operators"


OPERATOR = Operator("linear", onednn=needs_onednn, torch=anywhere, reference=anywhere)


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
    y: Tensor = OPERATOR.pick(x, backend, plain=_plain(x, weight))(x, weight, bias)
    return y


def _plain(x: Tensor, weight: Tensor) -> bool:
    """Whether nobody looks at the operators. Counters of FLOPs and transforms of functions know the public ones
    alone; a compiled graph may have one of its own where it needs no derivative."""
    if torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():
        return not torch.is_grad_enabled()
    plain = type(x) is Tensor and type(weight) in (Tensor, nn.Parameter)
    return plain and not torch._C._are_functorch_transforms_active() and _get_current_dispatch_mode() is None

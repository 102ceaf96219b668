"""Who looks at a call: compilers, transforms, counters, profilers, hooks. For them operators are torch's own, and
leaves are called. Code of our own is for plain tensors that nobody looks into."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.torch_private import in_transform, is_hooked, is_profiled
from blockforge.torch_private import is_watched as is_watched

_PLAIN = (Tensor, nn.Parameter)


def is_captured() -> bool:
    """Whether a graph of torch's own operators is made: by a compiler, an exporter, a tracer."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work (vmap, grad, jvp, ...), or forward-mode differentiation: they know
    the rules of torch's own operators alone."""
    return not torch.compiler.is_compiling() and in_transform()  # a graph is transformed as a whole


def is_functional() -> bool:
    """Whether an operator must be a pure function of torch's own operators, each of which has all its rules."""
    return is_captured() or is_transformed()


def is_plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Whether nobody looks at the operators, and there is one type on one device, as oneDNN wants it. Counters of
    FLOPs, transforms of functions, derivatives in forward mode and compilers know the public operators alone."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    dtype, device = x.dtype, x.device
    for t in (weight,) if bias is None else (weight, bias):
        if type(t) not in _PLAIN or t.dtype is not dtype or t.device != device:
            return False
    return type(x) is Tensor and not (in_transform() or is_watched())


def is_unseen(x: Tensor) -> bool:
    """Whether nobody looks at the operators of a kernel on the CPU that is given x, a profiler included: then its code
    may be called without the operators of torch that stand for it."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in _PLAIN or not x.is_cpu:
        return False
    return not (in_transform() or is_watched() or is_profiled())


def untouched(leaf: nn.Module, made: type) -> bool:
    """Whether a leaf is exactly of the class that it was made of, its parameters plain and its call watched by nobody:
    then computing what it computes in another way is the same as calling it."""
    if type(leaf) is not made or "forward" in leaf.__dict__ or is_hooked(leaf):
        return False
    for p in leaf._parameters.values():  # asked at every call: no generator
        if type(p) is not nn.Parameter and hasattr(p, "__tensor_flatten__"):
            return False
    return True


def as_given(x: Tensor) -> AbstractContextManager[Any]:
    """Inside, autocast changes no type. The meta device knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

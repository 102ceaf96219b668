"""Who looks at a call: compilers, transforms, counters, profilers, hooks. For them operators are torch's own, and
leaves are called. Code of our own is for plain tensors that nobody looks into."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, profiler
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import _get_current_dispatch_mode

_PLAIN = (Tensor, nn.Parameter)


def is_captured() -> bool:
    """Whether a graph of torch's own operators is made: by a compiler, an exporter, a tracer."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work (vmap, grad, jvp, ...), or forward-mode differentiation: they know
    the rules of torch's own operators alone."""
    return not torch.compiler.is_compiling() and in_transform()  # a graph is transformed as a whole


def in_transform() -> bool:
    """`is_transformed` where no graph is compiled, for those who have asked that before: asked for at every layer."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


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
    return not (in_transform() or is_watched() or profiler._is_profiler_enabled)


def is_watched() -> bool:
    """Whether a mode of torch sees every operator, as a counter of FLOPs does."""
    return _get_current_dispatch_mode() is not None


def untouched(leaf: nn.Module, made: type) -> bool:
    """Whether a leaf is exactly of the class that it was made of, its parameters plain and its call watched by nobody:
    then computing what it computes in another way is the same as calling it."""
    if type(leaf) is not made or "forward" in leaf.__dict__ or _has_any_global_hook():
        return False
    if leaf._forward_hooks or leaf._forward_pre_hooks or leaf._backward_hooks or leaf._backward_pre_hooks:
        return False
    for p in leaf._parameters.values():  # asked at every call: no generator
        if type(p) is not nn.Parameter and hasattr(p, "__tensor_flatten__"):
            return False
    return True


def as_given(x: Tensor) -> AbstractContextManager[Any]:
    """Inside, autocast changes no type. The meta device knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)

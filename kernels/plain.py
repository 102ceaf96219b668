"""When operators must be made of torch's own, and when they may run as code of their own on the CPU, which is for
plain tensors that nobody looks into."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad, profiler
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _get_current_dispatch_mode

from blockforge.kernels.costs import rehearsing

_PLAIN = (Tensor, nn.Parameter)


def needs_onednn(x: Tensor, *, plain: bool = True, **facts: object) -> str | None:
    """Refuses what is not float32 in the CPU's memory, and what somebody looks into."""
    if x.device.type != "cpu":
        return f"oneDNN runs on the CPU, the tensor is on {x.device.type}"
    if x.dtype != torch.float32:
        return f"for {str(x.dtype).removeprefix('torch.')} torch's own way is as fast"
    if not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN"
    return None if plain else "autocast, a counter, a transform or a compiler looks at the operators"


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


def as_given(x: Tensor) -> AbstractContextManager[Any]:
    """Inside, autocast changes no type. The meta device knows no autocast."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def attention(q_BNLD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None = None) -> Tensor:
    """torch's `scaled_dot_product_attention`. Of the meta device torch wants plain products; while memory is counted
    there (`costs.rehearsal`) it is fused as on a CPU: unless the mask is learnt. Fused, a CPU's has rules neither for
    batches of vmap nor for forward mode nor for second derivatives: transforms get the products."""
    if q_BNLD.is_meta and rehearsing() and not (mask is not None and mask.requires_grad):
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        y: Tensor = fused(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask)[0]
        return y
    with sdpa_kernel(SDPBackend.MATH) if is_transformed() else nullcontext():
        return F.scaled_dot_product_attention(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask)


def dilation_of_1x1(x: Tensor) -> int:
    """A dilation is without effect on a 1x1 kernel; on a CPU it keeps torch from paths that are many times
    slower, its BLAS with one thread and its own loops over the groups (measured: docs/performance.md). Others
    that run an exported graph have no such paths."""
    return 2 if x.device.type == "cpu" and not torch.compiler.is_exporting() else 1

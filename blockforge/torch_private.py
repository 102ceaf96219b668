"""All names of torch that begin with an underscore and that we use, behind names of ours.

torch may change them in any release. They were tried with torch 2.13 (`constraints.txt`); a newer version that lacks
one fails here, by its name. Not here: `_apply`, `_modules`, `_parameters` and `_buffers`, by which torch lets a module
say what it is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, profiler
from torch.nn.modules import batchnorm, conv, pooling
from torch.nn.modules.module import _has_any_global_hook
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_iter as tree_iter
from torch.utils._pytree import tree_map_only as tree_map_only
from torch.utils._pytree import tree_unflatten as tree_unflatten

Conv = conv._ConvNd
BatchNorm = batchnorm._BatchNorm
BatchOrInstanceNorm = batchnorm._NormBase
POOLS = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd)
"""Bases of layers, of any number of dimensions."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def in_transform() -> bool:
    """Whether a transform of torch.func is at work, or forward-mode differentiation."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def is_one_of_many(dy: Tensor) -> bool:
    """Whether a gradient is one of several that are made at once (`is_grads_batched=True`)."""
    return torch._C._functorch.is_legacy_batchedtensor(dy)


def is_watched() -> bool:
    """Whether a mode of torch sees every operator, as a counter of FLOPs does."""
    return _get_current_dispatch_mode() is not None


def is_profiled() -> bool:
    """Whether torch's profiler is on."""
    return bool(profiler._is_profiler_enabled)


def is_hooked(module: nn.Module) -> bool:
    """Whether a hook is called around the module's `forward`, its own or one of all modules."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own) or _has_any_global_hook()


def names_of_computed_buffers(module: nn.Module) -> set[str]:
    """The buffers of the module itself that no state dict has."""
    return module._non_persistent_buffers_set


def constant_of_a_graph(function: _Function) -> _Function:
    """torch.compiler.assume_constant_result, without its import of the whole compiler and of triton."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def has_onednn_linear() -> bool:
    """Whether this torch was built with `onednn_linear`."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer by the operator that torch's own compiler calls where it prefers oneDNN to the BLAS. It has no
    derivative."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def fused_attention(
    q_BNLD: Tensor, k_BNLD: Tensor, v_BNLD: Tensor, mask: Tensor | None, scale: float | None = None
) -> Tensor:
    """What a CPU runs of `scaled_dot_product_attention`, on the meta device too."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    y: Tensor = fused(q_BNLD, k_BNLD, v_BNLD, attn_mask=mask, scale=scale)[0]
    return y


def move_towards(averages: Sequence[Tensor], values: Sequence[Tensor], share: float) -> None:
    """averages <- averages + share * (values - averages), all tensors in one call."""
    torch._foreach_lerp_(list(averages), list(values), share)


def storage_key(storage: torch.UntypedStorage) -> int:
    """A number that two tensors share where they share their memory."""
    return storage._cdata

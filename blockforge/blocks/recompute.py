"""Gradient checkpointing: a forward pass that keeps its inputs alone and runs once more when the gradients are made.

Nothing else may differ. What runs again finds the buffers as the first run found them and leaves them as the first run
left them (the statistics of a batch norm move once), the generators likewise (torch sees to these), and chooses the
kernels that the first run chose, in whatever thread and context the backward pass is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint as of_torch

from blockforge.torch_private import names_of_computed_buffers

_Buffers = list[tuple[nn.Module, str, Tensor]]
"""Modules, names of buffers of theirs, and what these held."""


def checkpoint(module: nn.Module, run: Callable[..., Any], *inputs: Any, use_reentrant: bool = False) -> Any:
    """`run(*inputs)` without what its backward pass needs, which is computed once more then.

    Args:
        module: whose buffers `run` may change.
        run: gives tensors; called once more for each backward pass.
        use_reentrant: torch's older way; gradients reach tensors among `inputs` alone, not those inside containers.
    """
    if torch.compiler.is_compiling():  # a graph has its own rule for buffers
        return of_torch.checkpoint(run, *inputs, use_reentrant=use_reentrant)
    context, buffers = copy_context(), _Buffers()
    first = True

    def runs(*inputs: Any) -> Any:
        nonlocal first, buffers
        if first:
            first, buffers = False, [(m, n, b.clone()) for m, n, b in _state(module)]
            return run(*inputs)
        with _in_place_of(buffers):
            return context.copy().run(run, *inputs)

    return of_torch.checkpoint(runs, *inputs, use_reentrant=use_reentrant)


def _state(module: nn.Module) -> _Buffers:
    """Buffers that a state dict has: what is left out of it is computed, not changed by a forward pass."""
    parts = [(m, names_of_computed_buffers(m)) for m in module.modules()]
    return [(m, n, b) for m, computed in parts for n, b in m._buffers.items() if b is not None and n not in computed]


@contextmanager
def _in_place_of(buffers: _Buffers) -> Iterator[None]:
    """Inside, the modules have copies of these in place of their own."""
    kept = [(m, n, m._buffers[n]) for m, n, _ in buffers]
    try:
        for m, n, before in buffers:
            m._buffers[n] = before.clone()
        yield
    finally:
        for m, n, buffer in kept:
            m._buffers[n] = buffer

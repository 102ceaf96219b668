"""Derivatives of kernels that are to be differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blockforge.kernels.observers import is_transformed
from blockforge.torch_private import is_one_of_many


def is_asked_for_more(dy: Tensor) -> bool:
    """In the backward pass of `dy`: whether its result is to be differentiated (`create_graph=True`) or is one of many
    (`is_grads_batched=True`, transforms), which only the rules of torch's own operators can."""
    return torch.is_grad_enabled() or is_transformed() or is_one_of_many(dy)


def of_plain(function: Callable[..., Tensor], dy: Tensor, *given: Tensor | None) -> tuple[Tensor | None, ...]:
    """The gradients of `function(*given)`, made of torch's own operators: a graph that leads back to `given` and `dy`.

    Args:
        function: the operator as a pure function of torch's own operators.
        given: what it was called with; None: left out, and so is its gradient.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        own: list[Any] = [t.view_as(t) if t is not None and t.requires_grad else t for t in given]  # one may come twice
        wanted = [i for i, t in enumerate(own) if t is not None and t.requires_grad]
        y, read = function(*own), [own[i] for i in wanted]  # a scan of one step does not read its decays
        of_wanted = torch.autograd.grad(y, read, dy, create_graph=again, allow_unused=True, materialize_grads=True)
    grads: list[Tensor | None] = [None] * len(given)
    for i, one in zip(wanted, of_wanted, strict=True):
        grads[i] = one
    return tuple(grads)

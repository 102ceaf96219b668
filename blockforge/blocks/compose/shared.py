"""Whether a part that stands at several places is one module there, so that it may have one set of weights."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks.base import AnyPlaced
from blockforge.blocks.building import built
from blockforge.blocks.compose.program import Program


@functools.lru_cache(4096)
def same_module(first: AnyPlaced, other: AnyPlaced) -> bool:
    """Whether what is built for one place is what is built for the other: of the same classes, with parameters and
    buffers of the same shapes, told the same. A pooling is, on maps of any size; a linear layer on maps of one width; a
    position embedding on maps of one size. Both are built on the meta device, in milliseconds, unless the places are
    equal."""
    if first == other or first.op.inline is not None:
        return type(first.op) is type(other.op)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return _alike(built(first), built(other))
    except (NotImplementedError, RuntimeError, TypeError):  # made of values, which nothing has on this device
        return False


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return bool(a.shape == b.shape)
    if isinstance(a, nn.Module):
        return _alike(vars(a), vars(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(_alike, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    # a program tells the shapes of its maps as well; what it runs is the function that stands beside it
    return isinstance(a, Program) or bool(a == b)

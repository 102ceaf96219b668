"""What really happens when a module runs: multiply-adds, and the most bytes alive at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blockforge.blocks.live_storages import BATCHES, LiveStorages, growth, per_image
from blockforge.kernels.costs import COSTED

_PACKAGES = ("numba",)
"""Backends that are a package to be installed."""


def count_macs(run: Callable[[], Any]) -> int:
    """Multiply-adds of `run()`: half of what torch's FlopCounterMode counts.

    Fused attention is replaced by plain products, because on a CPU the counter does not know the fused one.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    flops = counter.get_total_flops()
    assert flops % 2 == 0, f"FlopCounterMode counts two for each multiply-add, so not {flops}"
    return flops // 2


def runnable_backends() -> list[str]:
    """The backends that costs are of and that run here on the CPU."""
    return [name for name in COSTED if name not in _PACKAGES or find_spec(name) is not None]


def peak_bytes(run: Callable[[], Any]) -> int:
    """Most bytes alive at once in tensors that `run()` makes, in no_grad mode.

    Counts storages, so views and in-place results are free; what existed before is not counted, nor what a
    kernel allocates inside itself.
    """
    return max(_course(run), default=0)


def peak_bytes_per_image(module: Callable[..., Any], inputs: Callable[[int], tuple[Any, ...]]) -> int:
    """What each image adds to the peak of `module(*inputs(batch))` in large batches, see `live_storages.growth`; the
    inputs do not count."""
    return growth(lambda batch: _course(partial(module, *inputs(batch))))[0]


def alive_at_peak(module: Callable[..., Any], inputs: Callable[[int], tuple[Any, ...]], most: int = 12) -> str:
    """A line for each tensor that lives where `peak_bytes_per_image` is found, the largest first: its bytes, shape and
    type, the operator that made it and the line of code that called that. Of a batch of `BATCHES[1]` images."""
    _, moment = growth(lambda batch: _course(partial(module, *inputs(batch))))
    given = inputs(BATCHES[1])
    if moment is None:
        course = _course(partial(module, *given))
        moment = course.index(max(course))
    with torch.no_grad(), LiveStorages(list_after=moment) as live:
        module(*given)
    more = [f"    and {len(live.listed) - most} smaller ones"] if len(live.listed) > most else []
    lines = [f"    {made}" for made in live.listed[:most]]
    return "\n".join([f"alive there, of {BATCHES[1]} images:", *lines, *more])


def slope(held: Callable[[int], int]) -> int:
    """What each image adds to what is held: what a module makes of its weights, once a call, does not count."""
    few, many = (held(batch) for batch in BATCHES)
    return per_image(many - few)


def _course(run: Callable[[], Any]) -> list[int]:
    """Bytes alive after each operator of `run()`, see `peak_bytes`."""
    with torch.no_grad(), LiveStorages() as live:
        run()
    return live.course


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter off its initial value, so that zeros and ones hide nothing. Returns the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter), alpha=0.2)
    return module

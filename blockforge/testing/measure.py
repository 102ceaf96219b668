"""What really happens when a module runs: multiply-adds, and the most bytes alive at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

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
    with torch.no_grad(), _LiveStorages() as live:
        run()
    return live.peak


def peak_bytes_per_image(module: Callable[..., Any], inputs: Callable[[int], tuple[Any, ...]]) -> int:
    """What each image adds to the peak of `module(*inputs(batch))`; the inputs themselves do not count.

    The slope between two batches, so that what a module makes of its weights, once a call, does not count.
    """
    few, many = 4, 8
    peaks = [peak_bytes(partial(module, *inputs(batch))) for batch in (few, many)]
    return (peaks[1] - peaks[0]) // (many - few)


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages that operators return, until each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}  # a storage's address -> its bytes
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(t)._cdata for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._see(_storage(tensor), given)
        self.peak = max(self.peak, self.now)
        return result

    def _see(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self.alive:
            self.now += size - self.alive[address]  # an operator may resize what it is given
        elif address not in given:
            self.now += size
            weakref.finalize(storage, self._freed, address)
        else:
            return
        self.alive[address] = size

    def _freed(self, address: int) -> None:
        self.now -= self.alive.pop(address)


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every parameter off its initial value, so that zeros and ones hide nothing. Returns the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise.to(parameter), alpha=0.2)
    return module

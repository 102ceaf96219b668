"""How much memory a call really takes, by what the allocator says."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_SILENT = "6"
"""Else the profiler writes its start and stop to standard error. It reads this when it first runs."""


def allocated_peak(run: Callable[[], Any], device: str = "cpu") -> int:
    """Most bytes that `run()` holds at once beyond what was allocated before it.

    On the CPU from the profiler's records of allocations, on CUDA from the caching allocator's counters.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _allocated_on_cpu(run)[0]


def held(run: Callable[[], Any]) -> int:
    """Bytes on the CPU that `run()` made and that its result keeps alive: of a forward pass, what backward needs."""
    return _allocated_on_cpu(run)[1]


def _allocated_on_cpu(run: Callable[[], Any]) -> tuple[int, int]:
    """Most bytes at once, and bytes at the end, while the result lives."""
    os.environ.setdefault("KINETO_LOG_LEVEL", _SILENT)
    with _no_collection(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
        result = run()
    assert records.profiler is not None
    assert records.profiler.kineto_results is not None
    now = peak = 0
    for event in records.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    del result
    return peak, now


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Garbage from before that is collected meanwhile would be taken for memory that `run` gave back."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

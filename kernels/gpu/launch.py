"""How every Triton kernel is started."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from blockforge.kernels.backends import KernelError
from blockforge.kernels.buffers import check_memory, same_device

MOST_PROGRAMS = 2**31 - 1, 2**16 - 1, 2**16 - 1
"""Along each axis of a grid, by CUDA."""

_TYPES = torch.float32, torch.float16, torch.bfloat16, torch.int32


def start(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Run a kernel on the device that its tensors are on, which need not be the current one.

    Args:
        kernel: made by `triton.jit`.
        grid: programs along each axis; with none along one there is nothing to do.
        arguments, options: the kernel's.

    Raises: KernelError if a tensor is none that kernels read and write, or the grid is larger than a device allows.
    """
    tensors = [t for t in arguments if isinstance(t, Tensor)]
    device = same_device(tensors)
    for tensor in tensors:
        check_memory(tensor)
        if tensor.dtype not in _TYPES:
            raise KernelError(f"the Triton kernels compute in float32, and read no {tensor.dtype}\n  {_HINT}")
    if any(wanted > most for wanted, most in zip(grid, MOST_PROGRAMS, strict=False)):
        raise KernelError(f"a grid of {' x '.join(map(str, grid))} programs is larger than a device allows\n  {_HINT}")
    if 0 in grid:
        return
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **options)


_HINT = "hint: backend='torch', or a smaller batch"

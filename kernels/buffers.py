"""The memory that kernels read and write: made here, and checked here before its address is given away.

Nothing global of torch's (default dtype, default device) has a say: a kernel that writes float32 through an address
writes past the end of a buffer of half of its bytes, and on another device it writes anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from blockforge.kernels.backends import KernelError


def empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A buffer on the device of `like`, dense, of which nothing is known."""
    return torch.empty(tuple(shape), dtype=dtype, device=like.device)


def zeros(shape: Sequence[int], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same, of zeros."""
    return torch.zeros(tuple(shape), dtype=dtype, device=like.device)


def address(x: Tensor, shape: tuple[int, ...], *, inner: int = 0) -> int:
    """Where the numbers of a tensor lie, for compiled code that reads and writes float32 on the CPU.

    Args:
        shape: what the code goes through.
        inner: so many of the last axes must lie without gaps; the code is told the strides of the others.

    Raises: KernelError if it has not this shape, this layout, this type or this memory.
    """
    if x.dtype != torch.float32 or not x.is_cpu:
        raise _refused(x, "must be float32 on the CPU")
    plain = x.shape == shape and x.layout == torch.strided and x.is_contiguous() and not x.is_neg()
    if plain and 4 * x.storage_offset() + x.nbytes <= x.untyped_storage().nbytes():  # nearly all; asked for fast
        return x.data_ptr()
    if x.shape != shape:
        raise _refused(x, f"must be {tuple(shape)}")
    check_memory(x)
    if inner and not x.is_contiguous() and not _is_dense(x, inner):
        raise _refused(x, f"must have its last {inner} axes without gaps, not strides {x.stride()}")
    return x.data_ptr()


def check_memory(x: Tensor) -> None:
    """Raises: KernelError if a tensor has no memory of its own that holds all that its shape and strides reach."""
    if x.layout != torch.strided or x.is_neg() or x.is_conj():
        raise _refused(x, "must be plain numbers in memory")
    reach = x.numel()
    if reach and not x.is_contiguous():
        reach = 1
        for n, s in zip(x.shape, x.stride(), strict=True):  # at every call of a scan: no generator
            reach += (n - 1) * s
    there = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    if reach > there and reach:
        raise _refused(x, f"reaches over {reach} elements, of which {max(0, there)} are in memory (was it freed?)")


def same_device(tensors: Iterable[Tensor]) -> torch.device:
    """The device of all of them. Raises: KernelError if there are several."""
    devices = {t.device for t in tensors}
    if len(devices) != 1:
        names = ", ".join(sorted(map(str, devices)))
        raise KernelError(f"the tensors of a kernel are on several devices: {names}")
    return devices.pop()


def _is_dense(x: Tensor, inner: int) -> bool:
    """Whether the last `inner` axes lie in order without gaps."""
    shape, strides, step = x.shape, x.stride(), 1
    for axis in range(-1, -inner - 1, -1):
        if shape[axis] != 1 and strides[axis] != step:
            return False
        step *= shape[axis]
    return True


def _refused(x: Tensor, why: str) -> KernelError:
    what = f"a {str(x.dtype).removeprefix('torch.')} tensor of {tuple(x.shape)} on {x.device}"
    return KernelError(f"a kernel was handed {what}, which {why}\n  hint: backend='torch' takes any tensor")

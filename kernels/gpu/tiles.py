"""What Triton kernels of matrix products share: what they refuse, how large a tile is, how exact a product."""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.kernels.backends import needs_triton


def needs_triton_in_float32(x: Tensor, **facts: object) -> str | None:
    """Refuses what `needs_triton` refuses, and float64."""
    if why := needs_triton(x):
        return why
    return "its kernels compute in float32, the tensor is float64" if x.dtype == torch.float64 else None


def tile(size: int) -> int:
    """The side of a tile that holds so many elements: a power of two; tensor cores want 16 at least."""
    return 1 << max(4, (size - 1).bit_length())


def precision(x: Tensor) -> str:
    """Of a kernel's products in float32. TensorFloat-32 where torch's setting allows it, and for half precision,
    none of whose digits it drops; else three such products in place of one, which are as good as float32 is."""
    if torch.version.hip is not None:
        return "ieee"
    half = x.dtype in (torch.float16, torch.bfloat16)
    return "tf32" if half or _allows_tf32() else "tf32x3"


def _allows_tf32() -> bool:
    """By whichever of torch's settings was used: it raises where the older one is read after the newer one was set."""
    matmul = torch.backends.cuda.matmul
    newer = getattr(matmul, "fp32_precision", None)  # since torch 2.9; the older setting shows in it
    return bool(matmul.allow_tf32) if newer is None else newer == "tf32"

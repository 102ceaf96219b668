"""State space duality as an operator of torch: the same for every way to compute it."""

from __future__ import annotations

from blockforge.kernels.signature import Signature, dense
from blockforge.kernels.ssd import captured

SIGNATURE = Signature(
    "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, bool reverse",
    plain=captured.ssd,
    result=lambda x, *others: dense(x),
)

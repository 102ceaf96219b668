"""The selective scan as an operator of torch, with its derivative and its shapes for compiled graphs: the same for
every way to compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from blockforge.kernels.buffers import empty
from blockforge.kernels.cross_scan.directions import Order
from blockforge.kernels.selective_scan import captured
from blockforge.kernels.signature import Signature, dense


def differentiable(backend: str, scan: Any) -> Callable[..., Tensor]:
    """The function `selective_scan` of a backend, registered as `blockforge::selective_scan_<backend>`. It computes in
    float32 and copies nothing where u and delta have their channels side by side; its backward pass computes the states
    anew.

    Args:
        scan: a class like `numba_impl.Scan`: `of(operands)`, `forward(y, add)`, `backward(dy, du, ddelta, add)`.
    """

    def forward(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None,
        softplus: bool, reverse: bool,
    ) -> Tensor:  # fmt: skip
        u_BLD = u.mT
        y = empty(u_BLD.shape, u)
        scan.of(u_BLD, delta.mT, A, B, C, D, delta_bias, _line(u.shape[2], reverse), softplus).forward(y, add=False)
        return (y if u.dtype == y.dtype else y.to(u.dtype)).mT

    def backward(
        dy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
        delta_bias: Tensor | None, softplus: bool, reverse: bool,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        operands = scan.of(u.mT, delta.mT, A, B, C, D, delta_bias, _line(u.shape[2], reverse), softplus)
        du, ddelta = (empty(u.mT.shape, u) for _ in range(2))
        dA, dB, dC, dD, dbias = operands.backward(dy.mT, du, ddelta, add=False)
        grads = ((du.mT, u), (ddelta.mT, delta), (dA.mT, A), (dB.mT, B), (dC.mT, C), (dD, D), (dbias, delta_bias))
        return tuple(None if t is None else g.to(t.dtype) for g, t in grads)

    run = SIGNATURE.bind(f"selective_scan_{backend}", forward, backward, quick=True)

    def selective_scan(
        u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None,
        delta_bias: Tensor | None = None, delta_softplus: bool = False, reverse: bool = False,
    ) -> Tensor:  # fmt: skip
        """See the package's `selective_scan`."""
        return run(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)

    return selective_scan


def _line(length: int, reverse: bool) -> Order:
    return Order(1, length, "rows_back" if reverse else "rows")


def _channels_inside(t: Tensor) -> Tensor:
    """An empty tensor of the same shape, that of a map with its channels side by side in memory."""
    return t.new_empty(t.mT.shape).mT if t.ndim > 1 else dense(t)


SIGNATURE = Signature(
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, bool softplus, bool reverse",
    plain=captured.selective_scan,
    result=lambda u, *others: _channels_inside(u),
    like=_channels_inside,
)

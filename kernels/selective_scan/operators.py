"""The selective scan as an operator of torch, with its derivative and its shapes for compiled graphs: the same for
every way to compute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, library

from blockforge.kernels.buffers import empty
from blockforge.kernels.cross_scan.directions import Order
from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.selective_scan import captured

_OPERANDS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias, bool softplus, bool reverse"
)


def differentiable(backend: str, scan: Any) -> Callable[..., Tensor]:
    """The function `selective_scan` of a backend, registered as `blockforge::selective_scan_<backend>`.

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
    ) -> tuple[Tensor, ...]:  # fmt: skip
        operands = scan.of(u.mT, delta.mT, A, B, C, D, delta_bias, _line(u.shape[2], reverse), softplus)
        du, ddelta = (empty(u.mT.shape, u) for _ in range(2))
        dA, dB, dC, dD, dbias = operands.backward(dy.mT, du, ddelta, add=False)
        found = ((du.mT, u), (ddelta.mT, delta), (dA.mT, A), (dB.mT, B), (dC.mT, C), (dD, D), (dbias, delta_bias))
        return tuple(g if t is None else g.to(t.dtype) for g, t in found)

    name = f"blockforge::selective_scan_{backend}"
    operator, run = _operator(name, forward, f"({_OPERANDS}) -> Tensor", _fake)
    seven = ", ".join(["Tensor"] * 7)
    _, derivative = _operator(f"{name}_backward", backward, f"(Tensor dy, {_OPERANDS}) -> ({seven})", _fake_backward)

    def gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # read once: a checkpoint computes them for one reading
        if is_asked_for_more(dy):
            return (*of_plain(captured.form(*ctx.options), dy, *tensors), None, None)
        grads = derivative(dy, *tensors, *ctx.options)
        return (*(None if t is None else g for t, g in zip(tensors, grads, strict=True)), None, None)

    operator.register_autograd(gradients, setup_context=_save)

    def selective_scan(
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None = None,
        *,
        delta_bias: Tensor | None = None,
        delta_softplus: bool = False,
        reverse: bool = False,
    ) -> Tensor:
        """See the package's `selective_scan`. In float32; the backward pass computes the states anew. No copies where u
        and delta have their channels side by side."""
        y: Tensor = run(u, delta, A, B, C, D, delta_bias, delta_softplus, reverse)
        return y

    return selective_scan


def _operator(name: str, function: Any, schema: str, fake: Any) -> tuple[library.CustomOpDef, Callable[..., Any]]:
    """An operator of torch, which autograd may know, and a function that runs it.

    Without gradients the function calls a second operator, `<name>_no_grad`, which autograd does not know: with cold
    caches, as after any large layer, that is half the time.
    """
    known = library.custom_op(name, function, mutates_args=(), schema=schema)
    known.register_fake(fake)
    library.define(f"{name}_no_grad", schema)
    library.impl(f"{name}_no_grad", "default", function)
    library.register_fake(f"{name}_no_grad", fake)
    plain = getattr(torch.ops.blockforge, f"{name.removeprefix('blockforge::')}_no_grad").default

    def run(*given: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in given):
            return known(*given)
        return plain(*given)

    return known, run


def _line(length: int, reverse: bool) -> Order:
    return Order(1, length, "rows_back" if reverse else "rows")


def _fake(u: Tensor, *others: Any) -> Tensor:
    return u.new_empty(u.mT.shape).mT


def _fake_backward(
    dy: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None,
    *options: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    given = (t.new_empty(t.mT.shape).mT for t in (u, delta, A, B, C))
    rows = (A.new_empty(u.shape[1], dtype=torch.float32 if t is None else t.dtype) for t in (D, bias))
    return (*given, *rows)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, softplus, reverse = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = softplus, reverse

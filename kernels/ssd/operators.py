"""A scan as a torch operator with a derivative: opaque to compilers and to counters of operators.

What a backward pass keeps is the scan's inputs, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, library

from blockforge.kernels.derivatives import is_asked_for_more, of_plain
from blockforge.kernels.ssd import captured

_TENSORS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D"
Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""Of x, dt, A, B, C and D in their types; without D an empty one."""


def differentiable(
    name: str, forward: Callable[..., Tensor], backward: Callable[..., Gradients]
) -> Callable[..., Tensor]:
    """Register `blockforge::<name>`. What is to be differentiated again is made of `captured.ssd`.

    Args:
        forward: (x, dt, A, B, C, D or None, reverse) -> y.
        backward: (dy, and the same) -> the gradients.

    Returns:
        The operator, which takes what `forward` takes.
    """
    schema = f"({_TENSORS}, bool reverse) -> Tensor"
    operator = library.custom_op(f"blockforge::{name}", forward, mutates_args=(), schema=schema)

    @operator.register_fake
    def _(x: Tensor, *others: Any) -> Tensor:
        return x.new_empty(x.shape)

    def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.reverse = inputs
        ctx.save_for_backward(*tensors)

    def differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # read once: a checkpoint computes them for one reading
        if is_asked_for_more(dy):
            return (*of_plain(partial(captured.ssd, reverse=ctx.reverse), dy, *tensors), None)
        *gradients, of_D = backward(dy, *tensors, ctx.reverse)
        return (*gradients, None if tensors[-1] is None else of_D, None)

    operator.register_autograd(differentiate, setup_context=save)
    return operator


def derivative(name: str, backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Register `blockforge::<name>`, the `backward` of an operator, for compilers that cannot look into it."""
    schema = f"(Tensor dy, {_TENSORS}, bool reverse) -> ({', '.join(['Tensor'] * 6)})"
    operator = library.custom_op(f"blockforge::{name}", backward, mutates_args=(), schema=schema)

    @operator.register_fake
    def _(dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, reverse: bool) -> Any:
        return tuple(t.new_empty(t.shape) for t in (x, dt, A, B, C, A[:0] if D is None else D))

    return operator

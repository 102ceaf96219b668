"""What an operator takes, written once. From it follow torch's schemas, the shapes in compiled graphs, what is kept for
the backward pass, and the ways to the gradients; a backend adds the two functions that compute:

    SIGNATURE = Signature("Tensor x, Tensor? D, bool reverse", plain=captured.ssd, result=like_x)

    ssd = SIGNATURE.bind("ssd_triton", forward, backward)

Every function of an operator takes the operands in this order: forward, backward (behind the gradient of the result),
the form in torch's own operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, library

from blockforge.kernels.derivatives import is_asked_for_more, of_plain

NAMESPACE = "blockforge"


def dense(t: Tensor) -> Tensor:
    """An empty tensor of the same shape, without gaps."""
    return t.new_empty(t.shape)


class Signature:
    """The operands of an operator and what is the same whatever computes it.

    Args:
        operands: as torch's schemas write them, tensors first, then options.
        plain: the operator in torch's own operators, differentiable as often as one likes.
        result: an empty tensor like the operator's result, of the operands.
        like: an empty tensor like the gradient of an operand.
    """

    def __init__(
        self,
        operands: str,
        *,
        plain: Callable[..., Tensor],
        result: Callable[..., Tensor],
        like: Callable[[Tensor], Tensor] = dense,
    ) -> None:
        self.operands, self.plain, self.result, self.like = operands, plain, result, like
        self.tensors = sum(operand.strip().startswith("Tensor") for operand in operands.split(","))
        """How many operands are tensors."""

    def bind(
        self,
        name: str,
        forward: Callable[..., Tensor],
        backward: Callable[..., Sequence[Tensor | None]],
        *,
        device_types: Any = None,
        opaque: bool = True,
        quick: bool = False,
    ) -> Callable[..., Tensor]:
        """The operator as one of torch, `blockforge::<name>`, which compilers and counters do not look into. What its
        backward pass keeps is the operands.

        Args:
            forward: of the operands.
            backward: of the result's gradient and the operands: a gradient for each tensor, None where there is none.
            opaque: whether `backward` is an operator of torch too, `<name>_backward`; else it is made of torch's.
            quick: see `_quick`.
        """
        of_forward = name, forward, f"({self.operands}) -> Tensor", self.result
        operator = _register(*of_forward, device_types)
        derivative: Callable[..., Any] = backward
        if opaque:
            full, gradients = self._full(backward), ", ".join(["Tensor"] * self.tensors)
            of_backward = f"{name}_backward", full, f"(Tensor dy, {self.operands}) -> ({gradients})", self._gradients
            derivative = _register(*of_backward, device_types)
            derivative = _quick(derivative, *of_backward) if quick else derivative
        operator.register_autograd(lambda ctx, dy: self.gradients(ctx, dy, derivative), setup_context=self.save)
        return _quick(operator, *of_forward) if quick else operator

    def _full(self, backward: Callable[..., Sequence[Tensor | None]]) -> Callable[..., tuple[Tensor, ...]]:
        """`backward` as an operator must be: with a tensor for every operand, an empty one where there is none."""

        def full(dy: Tensor, *operands: Any) -> tuple[Tensor, ...]:
            return tuple(dy.new_empty(0) if g is None else g for g in backward(dy, *operands))

        return full

    def _gradients(self, dy: Tensor, *operands: Any) -> tuple[Tensor, ...]:
        """Empty tensors like what `_full` gives."""
        return tuple(dy.new_empty(0) if t is None else self.like(t) for t in operands[: self.tensors])

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor | None) -> None:
        """Keep the operands for the backward pass."""
        ctx.save_for_backward(*inputs[: self.tensors])
        ctx.options = inputs[self.tensors :]

    def gradients(self, ctx: Any, dy: Tensor, derivative: Callable[..., Any]) -> tuple[Tensor | None, ...]:
        """The gradient of every operand: by `derivative`, or made of torch's own operators where more is asked for."""
        tensors, options = ctx.saved_tensors, ctx.options  # read once: a checkpoint computes them for one reading
        if is_asked_for_more(dy):
            grads: Any = of_plain(lambda *given: self.plain(*given, *options), dy, *tensors)
        else:
            grads = derivative(dy, *tensors, *options)
        return (*(None if t is None else g for t, g in zip(tensors, grads, strict=True)), *[None] * len(options))


def _register(
    name: str, function: Callable[..., Any], schema: str, fake: Callable[..., Any], device_types: Any
) -> library.CustomOpDef:
    """An operator of torch. `fake`: empty tensors like what it gives."""
    operator = library.custom_op(
        f"{NAMESPACE}::{name}", function, mutates_args=(), device_types=device_types, schema=schema
    )
    operator.register_fake(fake)
    return operator


def _quick(
    known: Callable[..., Any], name: str, function: Callable[..., Any], schema: str, fake: Callable[..., Any]
) -> Callable[..., Any]:
    """`known`, and for calls without gradients a second operator, `<name>_no_grad`, which autograd does not know: with
    cold caches, as after any large layer, that is half the time."""
    twin = f"{NAMESPACE}::{name}_no_grad"
    library.define(twin, schema)
    library.impl(twin, "default", function)
    library.register_fake(twin, fake)
    unknown = getattr(getattr(torch.ops, NAMESPACE), f"{name}_no_grad").default

    def run(*operands: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in operands):
            return known(*operands)
        return unknown(*operands)

    return run

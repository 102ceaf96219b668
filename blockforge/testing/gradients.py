"""Laws of training: gradients are there, finite, and the derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from blockforge.blocks.base import Op, Place
from blockforge.testing.examples import build_on_maps, example_inputs, example_module, expected_shape, flat
from blockforge.torch_private import tree_map_only

_TRIES = 8
"""Draws of weights after which a gradient that was always zero is no accident."""


def check_gradients(op: Op[*Place], *place: *Place) -> None:
    """The gradient reaches every parameter and every input, and is finite. It may be zero for some weights, as behind
    the one unit of a gate that ReLU cuts off, but not for all that are tried."""
    zero = _without_gradient(op, place, seed=0)
    for seed in range(1, _TRIES):
        if zero:
            zero &= _without_gradient(op, place, seed)
    assert not zero, f"the gradient of {', '.join(sorted(zero))} is zero everywhere"


def _without_gradient(op: Op[*Place], place: tuple[*Place], seed: int) -> set[str]:
    """Parameters and inputs whose gradient is zero, with weights and inputs of a seed."""
    module = example_module(op, *place, seed=seed)
    x = tree_map_only(Tensor, lambda t: t.requires_grad_(), example_inputs(op.kind, *place, seed=seed))
    _loss(module(*x)).backward()
    zero = set()
    for name, tensor in [*module.named_parameters(), *((f"input {i}", t) for i, t in enumerate(flat(x)))]:
        assert tensor.grad is not None, f"no gradient reaches {name}"
        assert tensor.grad.isfinite().all(), f"the gradient of {name} is not finite"
        if not tensor.grad.any():
            zero.add(name)
    return zero


def check_gradcheck(op: Op[*Place], *place: *Place) -> None:
    """The gradient is the derivative: finite differences in float64, along random directions."""
    module = example_module(op, *place).double()
    x = flat(example_inputs(op.kind, *place, batch=1, dtype=torch.float64))
    parameters = dict(module.named_parameters())
    leaves = [t.detach().clone().requires_grad_() for t in (*x, *parameters.values())]

    def run(*tensors: Tensor) -> Tensor:
        own = dict(zip(parameters, tensors[len(x) :], strict=True))
        args = (tensors[0], list(tensors[1 : len(x)])) if op.kind == "aggregator" else tensors[: len(x)]
        return torch.func.functional_call(module, own, args)

    try:
        torch.autograd.gradcheck(run, leaves, fast_mode=True)
    except GradcheckError as e:
        raise AssertionError(f"the gradient is not the derivative: {e}") from e


def check_training(op: Op[*Place], *place: *Place) -> None:
    """In training mode it runs forward and backward, as it was initialised, without losing a number."""
    module = build_on_maps(op, *place).train()
    x = tree_map_only(Tensor, lambda t: t.requires_grad_(), example_inputs(op.kind, *place))
    y = module(*x)
    assert tuple(y.shape) == expected_shape(op, place, 2), f"training mode gives {tuple(y.shape)}"
    assert y.isfinite().all(), "the initialised module gives numbers that are not finite"
    _loss(y).backward()
    finite = all(t.grad is not None and t.grad.isfinite().all() for t in (*module.parameters(), *flat(x)))
    assert finite, "a gradient is missing or not finite"


def _loss(y: Tensor) -> Tensor:
    """A sum with random weights: a plain sum hides what a final norm does."""
    return (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).sum()

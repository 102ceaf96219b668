"""The law of gradient checkpointing, for blocks and whole models: it changes nothing but the memory that is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from blockforge.blocks.base import Op, Place
from blockforge.blocks.recompute import checkpoint
from blockforge.kernels import backend
from blockforge.testing.examples import build_on_maps, example_inputs
from blockforge.testing.measure import runnable_backends
from blockforge.torch_private import tree_flatten, tree_unflatten


class Step(NamedTuple):
    """What a training step leaves behind."""

    output: Tensor
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    generator: Tensor


def check_checkpointing(op: Op[*Place], *place: *Place) -> None:
    """With checkpointing, in either of torch's ways, a training step gives the outputs, gradients and buffers and
    leaves the generators as without, with every backend; and each saved tensor is read once."""
    leaves, form = tree_flatten(example_inputs(op.kind, *place))

    def step(name: str, how: Callable[..., Tensor]) -> Step:
        torch.manual_seed(0)
        module = build_on_maps(op, *place).train()
        return train_step(module, leaves, lambda *x: how(module, lambda *x: module(*tree_unflatten(x, form)), *x), name)

    for name in runnable_backends():
        with read_once():
            plain = step(name, lambda module, run, *x: run(*x))
        for reentrant in (False, True):
            checkpointed = step(name, lambda *arguments, r=reentrant: checkpoint(*arguments, use_reentrant=r))
            compare(checkpointed, plain, f"checkpointed with use_reentrant={reentrant} on {name}")


def train_step(module: nn.Module, inputs: list[Tensor], run: Callable[..., Tensor], name: str = "auto") -> Step:
    """A forward and a backward pass from seed 1; the backend is in force in the forward pass alone."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    torch.manual_seed(1)
    with backend(name):
        y = run(*leaves)
    (y * torch.randn(y.shape, generator=torch.Generator("cpu").manual_seed(1), device="cpu").to(y)).sum().backward()
    gradients = {n: p.grad for n, p in module.named_parameters()} | {f"input {i}": t.grad for i, t in enumerate(leaves)}
    return Step(y.detach(), gradients, {n: b.clone() for n, b in module.named_buffers()}, torch.get_rng_state())


def compare(checkpointed: Step, plain: Step, how: str) -> None:
    """Raises: AssertionError that says what differs."""
    _close(checkpointed.output, plain.output, f"{how}, the output")
    for name, expected in plain.gradients.items():
        gradient = checkpointed.gradients[name]
        assert (gradient is None) == (expected is None), f"{how}, {name} has or lacks a gradient"
        if gradient is not None and expected is not None:
            _close(gradient, expected, f"{how}, the gradient of {name}")
    for name, expected in plain.buffers.items():
        _close(checkpointed.buffers[name], expected, f"{how}, the buffer {name}")
    assert torch.equal(checkpointed.generator, plain.generator), f"{how}, the generator is in another state"


def _close(actual: Tensor, expected: Tensor, what: str) -> None:
    most = (
        1e-4 * expected.double().abs().max().item() if expected.numel() else 0.0
    )  # without gradients, sums take other ways
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=most, equal_nan=True, msg=lambda m: f"{what}: {m}")


@contextmanager
def read_once() -> Iterator[None]:
    """Raises: AssertionError inside where a backward pass reads a saved tensor twice, which a checkpoint refuses."""
    read: set[int] = set()
    count = 0

    def pack(x: Tensor) -> tuple[int, Tensor]:
        nonlocal count
        count += 1
        return count, x

    def unpack(held: tuple[int, Tensor]) -> Tensor:
        assert held[0] not in read, f"a saved tensor of {tuple(held[1].shape)} is read twice"
        read.add(held[0])
        return held[1]

    with saved_tensors_hooks(pack, unpack):
        yield

"""Gradient checkpointing changes nothing but the memory that is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.mixers.dwconv import DepthwiseConv
from blockforge.blocks.recompute import checkpoint
from blockforge.kernels import backend
from blockforge.testing import check_checkpointing, runnable_backends
from blockforge.testing.checkpointing import compare, read_once, train_step

NARROW = sorted((Path(bf.__file__).parents[1] / "specs" / "narrow").glob("*.yaml"))
SPECS = sorted((Path(__file__).parent / "specs").glob("*.yaml"))


@pytest.mark.parametrize("name", runnable_backends())
@pytest.mark.parametrize("spec", [*NARROW, *SPECS], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_models(spec: Path, name: str) -> None:
    """Every architecture, every block: dropped paths and statistics of batches among what must not differ."""
    arch = bf.compile(spec, {"drop_path": 0.3})
    size = arch.plan.input
    x = torch.randn(2, size.channels, *size.size)
    steps = []
    for enable in (False, True):
        model = bf.build(arch, seed=0).train()
        model.set_grad_checkpointing(enable)
        with read_once():
            steps.append(train_step(model, [x], model, name))
    compare(steps[1], steps[0], "checkpointed")


def test_statistics_of_converted_norms_move_once() -> None:
    """Also where others have put their norms in the place of ours."""
    found = []
    for enable in (False, True):
        model = bf.build(next(p for p in NARROW if p.stem == "smt"), seed=0)
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    setattr(module, name, _Counting(child))
        model.train().set_grad_checkpointing(enable)
        x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        model(x).sum().backward()
        found.append({n: b.clone() for n, b in model.named_buffers()})
    assert any(n.endswith("runs") for n in found[0])
    for name, buffer in found[0].items():
        torch.testing.assert_close(found[1][name], buffer)


class _Counting(nn.Module):
    """A state that its own output depends on."""

    runs: Tensor

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("runs", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs.add_(1)
        return self.inner(x) * self.runs.clone()


def test_state_that_the_output_depends_on() -> None:
    grads = []
    for how in ("plain", "checkpoint", "checkpoint twice"):
        module = _Counting(nn.Identity())
        x = torch.ones(3, requires_grad=True)
        for _ in range(2):
            y = module(x) if how == "plain" else checkpoint(module, module, x)
        (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=how == "checkpoint twice")
        if how == "checkpoint twice":
            (again,) = torch.autograd.grad(y.sum(), x)
            assert torch.equal(again, grad)
        grads.append(grad)
        assert module.runs == 3
    assert torch.equal(grads[0], grads[1])
    assert torch.equal(grads[0], grads[2])


def test_the_backend_of_the_forward_pass_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the backward pass is outside of the context, or in another thread as on a GPU."""
    from blockforge.kernels import backends

    model = bf.build(next(p for p in NARROW if p.stem == "vmamba"), seed=0).train()
    model.set_grad_checkpointing()
    wished: list[tuple[str, str]] = []
    wanted = backends._wanted
    monkeypatch.setattr(backends, "_wanted", lambda given: wished.append(wanted(given)) or wanted(given))
    with backend("torch"):
        y = model(torch.randn(1, 1, 32, 32)).sum()
    first = len(wished)
    y.backward()
    assert len(wished) > first
    assert set(wished) == {("torch", "backend()")}


class _Leaky(DepthwiseConv):
    """A block with a mistake to be found."""

    def build(self, shape: Shape) -> nn.Module:
        return _Reading(shape.dim)


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        return dy * ctx.saved_tensors[1], (dy * ctx.saved_tensors[0]).sum((0, 1, 2))


class _Reading(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return _Twice.apply(x, self.weight)


def test_the_law_finds_what_breaks_it() -> None:
    with pytest.raises(AssertionError, match=r"a saved tensor of .* is read twice"):
        check_checkpointing(_Leaky(), Shape(5, 4, 6))

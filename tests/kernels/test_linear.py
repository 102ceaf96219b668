"""A linear layer by oneDNN against its definition."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from duality import assert_close, poisoned, results
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels import backend
from blockforge.kernels.linear import OPERATOR, linear, ways

BY_ONEDNN = partial(linear, backend="onednn")
DEFINITION = partial(linear, backend="reference")


@pytest.fixture(autouse=True)
def any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small operands take the ways of large ones."""
    monkeypatch.setattr(ways, "LEAST_WORK", 0)
    monkeypatch.setattr(ways, "MANY", 100)


def operands(*shape: int, width: int = 7, bias: bool = True) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn(shape, generator=generator), torch.randn(width, shape[-1], generator=generator))
    given = made + ((torch.randn(width, generator=generator),) if bias else ())
    return tuple(t.requires_grad_() for t in given)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 7, 64])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (63, 16), (2, 197, 33), (1, 3, 5, 8), (2, 9, 7, 8)])
def test_equals_the_definition(shape: tuple[int, ...], width: int, bias: bool) -> None:
    given = operands(*shape, width=width, bias=bias)
    with poisoned():
        found = results(BY_ONEDNN, given)
    assert_close(found, results(DEFINITION, given), 1e-5)


@pytest.mark.parametrize("shape", [(63, 16), (2, 9, 7, 8)])
def test_without_gradients(shape: tuple[int, ...]) -> None:
    given = operands(*shape)
    with torch.no_grad(), poisoned():
        found = BY_ONEDNN(*given)
    assert not found.requires_grad
    torch.testing.assert_close(found, DEFINITION(*given).detach(), rtol=1e-5, atol=1e-5)


def test_strided_inputs() -> None:
    x, weight = torch.randn(6, 4, 20)[:, ::2, 3:11], torch.randn(8, 10).T
    for own in (x, x.transpose(0, 1)):
        torch.testing.assert_close(BY_ONEDNN(own, weight[:, :8]), DEFINITION(own, weight[:, :8]), rtol=1e-5, atol=1e-5)


def test_a_result_may_be_overwritten() -> None:
    given = operands(2, 9, 3, width=4)
    assert_close(
        results(lambda *t: BY_ONEDNN(*t).relu_(), given), results(lambda *t: DEFINITION(*t).relu(), given), 1e-5
    )


def test_derivative_of_the_derivative() -> None:
    def norm_of_gradient(run: partial[Tensor]) -> Tensor:
        x, weight = operands(6, 5, bias=False)
        (of_x,) = torch.autograd.grad(run(x, weight).square().sum(), x, create_graph=True)
        return torch.autograd.grad(of_x.square().sum(), weight)[0]

    torch.testing.assert_close(norm_of_gradient(BY_ONEDNN), norm_of_gradient(DEFINITION))


def test_frozen_operands_get_no_gradient() -> None:
    x, weight, bias = operands(30, 5)
    weight.requires_grad_(False)
    BY_ONEDNN(x, weight, bias).sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(x.grad, weight.sum(0).expand(30, 5))


def test_who_looks_into_it_sees_the_public_operators() -> None:
    x, weight, bias = (t.detach() for t in operands(30, 16))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 30 * 16 * 7
    rows = torch.func.vmap(lambda row: linear(row, weight, bias))(x.unflatten(0, (10, 3)))
    torch.testing.assert_close(rows.flatten(0, 1), DEFINITION(x, weight, bias), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16


@pytest.mark.parametrize("grad", [True, False])
def test_captured_graphs_give_the_same(grad: bool) -> None:
    x, weight, bias = operands(2, 9, 7, 16)
    layer = nn.Linear(16, 7)
    layer.weight, layer.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    layer.forward = lambda x: linear(x, layer.weight, layer.bias)  # type: ignore[method-assign]
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(layer, (x,))
        compiled = torch.compile(linear, fullgraph=True, backend="aot_eager")(x, weight, bias)
    assert not any("blockforge" in str(n.target) or "mkldnn" in str(n.target) for n in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), DEFINITION(x, weight, bias), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled, DEFINITION(x, weight, bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_torchs(dtype: torch.dtype) -> None:
    x, weight, bias = (t.detach().to(dtype) for t in operands(30, 16))
    assert OPERATOR.choose(x, plain=True).backend == "torch"
    assert linear(x, weight, bias).dtype == dtype


def test_a_whole_model_may_run_without_it() -> None:
    given = operands(30, 16)
    with backend("torch"):
        assert torch.equal(linear(*given), torch.nn.functional.linear(*given))

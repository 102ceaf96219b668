"""The chunked state space duality against the loop that defines it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.ssd import reference, ssd
from blockforge.kernels.ssd.torch_impl import CHUNK

Operands = tuple[Tensor, ...]
LENGTHS = (1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3)


def make(length: int, groups: int = 1, *, largest_step: float = 0.1) -> Operands:
    """x, dt, A, B, C, D of two sequences with four heads."""
    torch.manual_seed(length)
    heads, width, states = 4, 5, 6
    x, dt = torch.randn(2, length, heads, width), torch.rand(2, length, heads) * largest_step
    A, D = -torch.rand(heads) * 16, torch.randn(heads)
    B, C = torch.randn(2, 2, length, groups, states)
    return tuple(t.double().requires_grad_() for t in (x, dt, A, B, C, D))


def rel(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_loop(length: int, groups: int, reverse: bool) -> None:
    operands = make(length, groups)
    y, expected = (f(*operands, reverse=reverse) for f in (ssd, reference))
    assert rel(y, expected) < 1e-13
    dy = torch.randn_like(y)
    given, wanted = (torch.autograd.grad(out, operands, dy, allow_unused=True) for out in (y, expected))
    for found, right in zip(given, wanted, strict=True):
        torch.testing.assert_close(found, torch.zeros_like(found) if right is None else right)


def test_without_skip() -> None:
    *operands, _ = make(CHUNK + 5)
    assert rel(ssd(*operands), reference(*operands)) < 1e-13


@pytest.mark.parametrize("largest_step", [1e-6, 1.0, 1e4])
def test_float32_at_any_step(largest_step: float) -> None:
    """Decays from 1 down to nothing: no overflow, and no digits lost in differences of large sums."""
    operands = make(3 * CHUNK, largest_step=largest_step)
    single = tuple(t.detach().float().requires_grad_() for t in operands)
    y = ssd(*single)
    assert rel(y.double(), reference(*operands)) < 3e-6
    for gradient in torch.autograd.grad(y.sum(), single):
        assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    halves = tuple(t.detach().bfloat16() for t in make(2 * CHUNK))
    y, expected = ssd(*halves), reference(*(t.double() for t in halves))
    assert y.dtype == torch.bfloat16
    assert rel(y.double(), expected) < 5e-3
    single = tuple(t.detach().float() for t in halves)
    with torch.autocast("cpu", torch.bfloat16):
        assert rel(ssd(*single).double(), expected) < 1e-6


def test_reverse_is_the_flipped_scan() -> None:
    x, dt, A, B, C, D = make(CHUNK + 9)
    flipped = ssd(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), D).flip(1)
    torch.testing.assert_close(ssd(x, dt, A, B, C, D, reverse=True), flipped)


def test_derivative() -> None:
    assert torch.autograd.gradcheck(ssd, make(CHUNK + 1), fast_mode=True)


def test_a_counter_sees_one_operator() -> None:
    """Costs count a scan by convention; the products of the chunks must not come on top."""
    with FlopCounterMode(display=False) as counter:
        ssd(*make(2 * CHUNK))
    assert counter.get_total_flops() == 0


class _Scan(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return ssd(*operands, reverse=True)


def test_exports_to_plain_operators() -> None:
    operands = make(CHUNK + 7)
    program = torch.export.export(_Scan(), operands)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("blockforge" in name for name in called), called
    torch.testing.assert_close(program.module()(*operands), ssd(*operands, reverse=True))

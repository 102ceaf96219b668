"""The chunked state space duality against the loop that defines it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from duality import assert_close, given, poisoned, rel, results, scan_operands, to
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.backends import KernelError
from blockforge.kernels.ssd import OPERATOR, bi_ssd, ssd
from blockforge.kernels.ssd.torch_impl import CHUNK

SCAN, LOOP = partial(ssd, backend="torch"), partial(ssd, backend="reference")
LENGTHS = (1, 2, 63, CHUNK, CHUNK + 1, 197)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_loop(length: int, groups: int, reverse: bool) -> None:
    operands = to(scan_operands(length, groups=groups))
    with poisoned():
        found = results(partial(SCAN, reverse=reverse), operands)
    assert_close(found, results(partial(LOOP, reverse=reverse), operands), 1e-12)


@pytest.mark.parametrize("states", [1, 8, 16, 64])
def test_any_number_of_states_and_width(states: int) -> None:
    operands = to(scan_operands(70, states, width=states % 7 + 1))
    assert_close(results(SCAN, operands), results(LOOP, operands), 1e-12)


def test_a_long_sequence() -> None:
    operands = scan_operands(3137, 2, 1, heads=1)
    with torch.no_grad():
        assert rel(ssd(*operands), LOOP(*operands)) < 1e-12


def test_without_skip() -> None:
    operands = (*to(scan_operands(CHUNK + 5))[:5], None)
    assert_close(results(SCAN, operands), results(LOOP, operands), 1e-12)


@pytest.mark.parametrize("largest_step", [1e-6, 1.0, 1e4])
def test_float32_at_any_step(largest_step: float) -> None:
    """Decays from 1 down to nothing: no overflow, and no digits lost in differences of large sums."""
    operands = scan_operands(3 * CHUNK, largest_step=largest_step)
    exact = tuple(t if t is None else t.float().double() for t in operands)
    found = results(SCAN, to(operands, torch.float32))
    assert_close(found, results(LOOP, to(exact)), 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    halves = to(scan_operands(2 * CHUNK), dtype)
    found = results(SCAN, halves)
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(LOOP, to(halves)), 4 * torch.finfo(dtype).eps)


def test_autocast_does_not_reach_it() -> None:
    operands = to(scan_operands(CHUNK + 5), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(SCAN, operands)
    assert_close(found, results(SCAN, operands), 1e-7)


def test_two_directions() -> None:
    x, dt, A, B, C, D = operands = to(scan_operands(CHUNK + 9, groups=2))
    wanted = [ssd(x[:, :, :2], dt[..., :2], A[:2], B[:, :, :1], C[:, :, :1], D[:2])]
    flipped = [t[:, :, -1:].flip(1) for t in (B, C)]
    wanted += [ssd(x[:, :, 2:].flip(1), dt[..., 2:].flip(1), A[2:], *flipped, D[2:]).flip(1)]
    torch.testing.assert_close(bi_ssd(*operands), torch.cat(wanted, dim=2))
    without = bi_ssd(x, dt, A, B, C)
    torch.testing.assert_close(without + D[:, None] * x, bi_ssd(*operands))


@pytest.mark.parametrize("reverse", [False, True])
def test_derivative(reverse: bool) -> None:
    assert torch.autograd.gradcheck(partial(SCAN, reverse=reverse), to(scan_operands(CHUNK + 1)), fast_mode=True)


def test_a_counter_sees_one_operator() -> None:
    """Costs count a scan by convention; the products of the chunks must not come on top."""
    with FlopCounterMode(display=False) as counter:
        ssd(*scan_operands(2 * CHUNK))
    assert counter.get_total_flops() == 0


class _Scan(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return ssd(*operands, reverse=True)


@pytest.mark.parametrize("length", [1, CHUNK, 2 * CHUNK + 7])
def test_exports_to_plain_operators(length: int) -> None:
    operands = scan_operands(length, groups=2)
    program = torch.export.export(_Scan(), operands)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("blockforge" in name for name in called), called
    assert len(program.graph.nodes) < 150, "as many as for one chunk"
    torch.testing.assert_close(program.module()(*operands), ssd(*operands, reverse=True))


def test_compiles_whole() -> None:
    """With the gradients, and again after the choice of a backend was asked for by its context."""
    operands = to(scan_operands(CHUNK + 7))
    compiled = torch.compile(ssd, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(SCAN, operands), 1e-12)


def test_what_triton_refuses() -> None:
    x = torch.empty(0)
    assert OPERATOR.choose(x).backend == "torch"
    with pytest.raises(KernelError, match="triton needs a CUDA device"):
        ssd(*to(scan_operands(3), torch.float32), backend="triton")


@pytest.mark.parametrize(
    ("at", "message"),
    [(0, "x must be"), (1, "dt must be"), (2, "A must be"), (3, "B must be"), (4, "C must be"), (5, "D must be")],
)
def test_shapes_that_do_not_fit(at: int, message: str) -> None:
    operands = list(scan_operands(5))
    operands[at] = given(tuple(operands))[at][:1, ..., None]
    with pytest.raises(ValueError, match=message):
        ssd(*operands)

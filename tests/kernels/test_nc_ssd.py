"""Non-causal state space duality as two products against its definition, head by head."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from duality import assert_close, gathering_operands, given, poisoned, results, to
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.nc_ssd import nc_ssd

PRODUCTS, DEFINITION = partial(nc_ssd, backend="torch"), partial(nc_ssd, backend="reference")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 63, 197])
def test_equals_the_definition(length: int, groups: int, weighted: bool) -> None:
    operands = to(gathering_operands(length, groups=groups, weighted=weighted))
    with poisoned():
        found = results(PRODUCTS, operands)
    assert_close(found, results(DEFINITION, operands), 1e-12)


@pytest.mark.parametrize("states", [1, 8, 16, 64])
def test_any_number_of_states_and_width(states: int) -> None:
    operands = to(gathering_operands(70, states, width=states % 7 + 1, heads=6, groups=3))
    assert_close(results(PRODUCTS, operands), results(DEFINITION, operands), 1e-12)


def test_a_long_sequence_without_skip() -> None:
    operands = (*to(gathering_operands(3137, 3, 2))[:4], None)
    assert_close(results(PRODUCTS, operands), results(DEFINITION, operands), 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)]
)
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    operands = to(gathering_operands(197), dtype)
    found = results(PRODUCTS, operands)
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(DEFINITION, to(operands)), tolerance)


@pytest.mark.parametrize("groups", [1, 2])
def test_derivative(groups: int) -> None:
    assert torch.autograd.gradcheck(PRODUCTS, to(gathering_operands(5, groups=groups)), fast_mode=True)


def test_a_counter_sees_the_products() -> None:
    with FlopCounterMode(display=False) as counter:
        nc_ssd(*gathering_operands(10, 6, 5))
    assert counter.get_total_flops() == 2 * (2 * 2 * 10 * 4 * 5 * 6)


class _Products(torch.nn.Module):
    def forward(self, *operands: Tensor) -> Tensor:
        return nc_ssd(*operands)


def test_captured_graphs_give_the_same() -> None:
    operands = gathering_operands(37, groups=2)
    exported = torch.export.export(_Products(), operands)
    assert not any("blockforge" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(*operands), nc_ssd(*operands))
    compiled = torch.compile(nc_ssd, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, to(operands)), results(PRODUCTS, to(operands)), 1e-12)


@pytest.mark.parametrize(
    ("at", "message"), [(0, "x must be"), (1, "m must be"), (2, "B must be"), (3, "C must be"), (4, "D must be")]
)
def test_shapes_that_do_not_fit(at: int, message: str) -> None:
    operands = list(gathering_operands(5))
    operands[at] = given(tuple(operands))[at][:1, ..., None]
    with pytest.raises(ValueError, match=message):
        nc_ssd(*operands)

"""The Triton kernels of `channel_attention`, on a CUDA device or, with TRITON_INTERPRET=1, step by step on the CPU.

`test_channel_attention_triton.py` runs this file: triton must know that it interprets before it is imported.
"""

from __future__ import annotations

import pytest
import torch
from channel_maps import make, on, turned
from duality import Operands, assert_close, poisoned, results, to
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.backends import KernelError, interpreting
from blockforge.kernels.channel_attention import OPERATOR

DEVICE = "cpu" if interpreting() else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.01, torch.float16: 0.002}
pytestmark = pytest.mark.skipif(not interpreting() and not torch.cuda.is_available(), reason="no CUDA device")


def check(operands: Operands, groups: int = 1, dtype: torch.dtype = torch.float32) -> None:
    """The kernels' output and gradients are those of the definition on the same numbers, in float64."""
    rounded = to(operands, dtype)
    with poisoned():
        found = results(on("triton", groups), to(rounded, dtype, DEVICE))
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(on("reference", groups), to(rounded)), TOLERANCE[dtype])


@pytest.mark.parametrize(("length", "reduced"), [(1, 1), (2, 63), (63, 2), (65, 65), (197, 7)])
def test_any_size_of_map(length: int, reduced: int) -> None:
    check(make(length, reduced, 6, 1 + (length == 2)), 2)


@pytest.mark.parametrize(("dim", "groups"), [(1, 1), (3, 3), (5, 1), (34, 2), (70, 1)])
def test_any_groups(dim: int, groups: int) -> None:
    check(make(20, 9, dim, 1), groups)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    check(make(20, 9, 12), 2, dtype)


def test_partial_sums_of_many_positions() -> None:
    check(make(520, 513, 2, 1))


def test_a_map_of_another_type() -> None:
    x, *others = to(make(20, 9, 8), torch.float32, DEVICE)
    half = [t.detach().bfloat16() for t in others if t is not None]
    y = on("triton", 2)(x, *half)
    assert y.dtype == torch.float32
    assert_close([y], [on("reference", 2)(x.double(), *(t.double() for t in half))], 1e-5)


def test_any_memory_layout() -> None:
    operands = to(make(9, 5, 4, 1), torch.float32, DEVICE)
    for a, b in zip(results(on("triton", 2), turned(operands)), results(on("triton", 2), operands), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_compiles_whole() -> None:
    operands, run = to(make(10, 5, 4, 1), torch.float32, DEVICE), on("triton", 2)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(run, operands), 1e-6)


def test_a_counter_sees_the_products() -> None:
    with FlopCounterMode(display=False) as counter:
        on("triton", 2)(*to(make(10, 7, 6), torch.float32, DEVICE))
    assert counter.get_total_flops() == 2 * (2 * (10 + 7) * 6 * 3)


def test_what_it_refuses() -> None:
    with pytest.raises(KernelError, match="float64"):
        on("triton")(*to(make(3, 3, 2), device=DEVICE))
    x = torch.empty(0, device=DEVICE)
    with pytest.raises(KernelError, match="a group of 5000 channels is too wide"):
        OPERATOR.choose(x, "triton", width=5000)

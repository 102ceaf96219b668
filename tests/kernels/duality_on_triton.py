"""The Triton kernels of `ssd` and `nc_ssd`, on a CUDA device or, with TRITON_INTERPRET=1, step by step on the CPU.

`test_duality_triton.py` runs this file: triton must know that it interprets before it is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from duality import Operands, assert_close, gathering_operands, poisoned, results, scan_operands, to
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.backends import KernelError, interpreting
from blockforge.kernels.nc_ssd import nc_ssd
from blockforge.kernels.ssd import ssd

DEVICE = "cpu" if interpreting() else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}
pytestmark = pytest.mark.skipif(not interpreting() and not torch.cuda.is_available(), reason="no CUDA device")


def check(
    operator: Callable[..., Tensor], operands: Operands, dtype: torch.dtype = torch.float32, **options: bool
) -> None:
    """The kernels' output and gradients are those of the definition on the same numbers, in float64."""
    rounded = to(operands, dtype)
    with poisoned():
        found = results(partial(operator, backend="triton", **options), to(rounded, dtype, DEVICE))
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(partial(operator, backend="reference", **options), to(rounded)), TOLERANCE[dtype])


@pytest.mark.parametrize(("length", "reverse"), [(1, False), (2, True), (63, False), (64, True), (197, True)])
def test_scan(length: int, reverse: bool) -> None:
    check(ssd, scan_operands(length, heads=2, groups=1 + (length == 63)), reverse=reverse)


@pytest.mark.parametrize(("states", "width"), [(1, 1), (8, 7), (16, 33), (64, 64)])
def test_scan_of_any_state(states: int, width: int) -> None:
    check(ssd, scan_operands(70, states, width, heads=2))


@pytest.mark.parametrize("largest_step", [1e-6, 1e4])
def test_scan_at_any_step(largest_step: float) -> None:
    check(ssd, scan_operands(130, heads=2, largest_step=largest_step))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    check(ssd, scan_operands(70, 16, 16, heads=2), dtype)
    check(nc_ssd, gathering_operands(70, 16, 16, heads=2), dtype)


def test_without_skip() -> None:
    check(ssd, (*scan_operands(40, heads=2)[:5], None))
    check(nc_ssd, (*gathering_operands(40, heads=2)[:4], None))


@pytest.mark.parametrize(("length", "weighted"), [(1, False), (2, True), (63, False), (65, True), (520, True)])
def test_gathering(length: int, weighted: bool) -> None:
    check(nc_ssd, gathering_operands(length, heads=2, groups=1 + (length == 63), weighted=weighted))


@pytest.mark.parametrize(("states", "width"), [(1, 1), (8, 7), (16, 33), (64, 64)])
def test_gathering_of_any_state(states: int, width: int) -> None:
    check(nc_ssd, gathering_operands(70, states, width, heads=2))


@pytest.mark.slow
def test_long_sequences() -> None:
    check(ssd, scan_operands(3137, 2, 2, heads=1))
    check(nc_ssd, gathering_operands(3137, 2, 2, heads=1))


@pytest.mark.parametrize(("operator", "make"), [(ssd, scan_operands), (nc_ssd, gathering_operands)])
def test_compiles_whole(operator: Callable[..., Tensor], make: Callable[..., Operands]) -> None:
    operands, run = to(make(20, heads=2), torch.float32, DEVICE), partial(operator, backend="triton")
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(run, operands), 1e-6)


def test_a_counter_sees_the_products() -> None:
    with FlopCounterMode(display=False) as counter:
        nc_ssd(*to(gathering_operands(10, 6, 5), torch.float32, DEVICE), backend="triton")
    assert counter.get_total_flops() == 2 * (2 * 2 * 10 * 4 * 5 * 6)


@pytest.mark.parametrize(("operator", "make"), [(ssd, scan_operands), (nc_ssd, gathering_operands)])
def test_what_it_refuses(operator: Callable[..., Tensor], make: Callable[..., Operands]) -> None:
    with pytest.raises(KernelError, match="float64"):
        operator(*to(make(3), device=DEVICE), backend="triton")
    with pytest.raises(KernelError, match="a state of 256 x 5 is too large"):
        operator(*to(make(3, 256), torch.float32, DEVICE), backend="triton")

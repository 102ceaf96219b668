"""The Triton kernels of `strip_mix`, on a CUDA device or, with TRITON_INTERPRET=1, step by step on the CPU.

`test_strip_mix_triton.py` runs this file: triton must know that it interprets before it is imported.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from duality import Operands, assert_close, poisoned, results, to
from strips import mixed, strip_operands
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.backends import KernelError, interpreting
from blockforge.kernels.strip_mix import Axis

DEVICE = "cpu" if interpreting() else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}
AXES: list[Axis] = ["rows", "columns"]
pytestmark = pytest.mark.skipif(not interpreting() and not torch.cuda.is_available(), reason="no CUDA device")


def check(operands: Operands, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    """The kernels' output and gradients are those of the definition on the same numbers, in float64."""
    rounded = to(operands, dtype)
    with poisoned():
        found = results(partial(mixed, backend="triton", **options), to(rounded, dtype, DEVICE))
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(partial(mixed, backend="reference", **options), to(rounded)), TOLERANCE[dtype])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("height", "width", "groups", "per_group", "strip"),
    [(1, 1, 1, 1, 1), (1, 2, 3, 1, 3), (4, 7, 3, 2, 3), (3, 13, 1, 3, 1), (2, 17, 2, 1, 7)],
)
def test_mixing(height: int, width: int, groups: int, per_group: int, strip: int, axis: Axis) -> None:
    check(strip_operands(height, width, groups, per_group, strip, columns=axis == "columns"), axis=axis)


@pytest.mark.parametrize("axis", AXES)
def test_lines_longer_than_a_tile(axis: Axis) -> None:
    """And more of them than one tile holds, so that the sums of the weight's gradient are shared."""
    size = (37, 66) if axis == "rows" else (66, 37)
    check(strip_operands(*size, 1, 1, 3, columns=axis == "columns"), axis=axis)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("beside_first", [False, True])
def test_joins_the_map_beside_it(axis: Axis, beside_first: bool) -> None:
    operands = strip_operands(4, 6, 2, 2, 3, columns=axis == "columns")
    check(operands, axis=axis, beside_first=beside_first)
    check((*operands[:4], None), axis=axis)


@pytest.mark.parametrize("axis", AXES)
def test_any_strides(axis: Axis) -> None:
    x, pos, weight, bias, beside = to(strip_operands(5, 5, 2, 3, 3), torch.float32, DEVICE)
    pos, x, beside = pos[:1, :1].expand(5, 5, 6), x.transpose(1, 2), beside.detach().permute(0, 2, 1, 3)
    weight = weight.detach().permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)
    found = mixed(x, pos, weight, bias, beside, axis=axis, backend="triton")
    assert_close([found], [mixed(x, pos, weight, bias, beside, axis=axis, backend="reference")], 1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    check(strip_operands(4, 7, 2, 2, 3), dtype, axis="rows")


def test_the_same_every_time() -> None:
    operands = to(strip_operands(9, 20, 2, 2, 3), torch.float32, DEVICE)
    first, again = (results(partial(mixed, axis="rows", backend="triton"), operands) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_compiles_whole() -> None:
    operands, run = (
        to(strip_operands(3, 5, 2, 2, 3), torch.float32, DEVICE),
        partial(mixed, axis="rows", backend="triton"),
    )
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(run, operands), 1e-6)


def test_a_counter_sees_the_products() -> None:
    operands = to(strip_operands(4, 7, 3, 2, 5), torch.float32, DEVICE)
    with FlopCounterMode(display=False) as counter:
        mixed(*operands, axis="rows", backend="triton")
    assert counter.get_total_flops() == 2 * (2 * 4 * 7 * 6) * 7 * 5


def test_what_it_refuses() -> None:
    with pytest.raises(KernelError, match="float64"):
        mixed(*to(strip_operands(3, 3, 1, 1, 3), device=DEVICE), axis="rows", backend="triton")

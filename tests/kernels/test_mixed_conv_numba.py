"""Multi-head mixed convolution compiled by numba against its definition, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from duality import Operands, assert_close, results, to
from mixed_conv_cases import make, on
from torch import library

from blockforge.kernels.backends import KernelError

pytest.importorskip("numba")

from blockforge.kernels.cpu import jit
from blockforge.kernels.mixed_conv import numba_impl

SIDES = (3, 5, 7, 9)


def check(operands: Operands) -> None:
    given = to(operands, torch.float32)
    assert_close(results(on("numba"), given), results(on("reference"), to(given)), 2e-6)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small work is shared out as well."""
    monkeypatch.setattr(jit, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 1), (1, 1, 63), (2, 17, 12)])
@pytest.mark.parametrize("width", [3, 16, 37])
def test_equals_the_definition(size: tuple[int, int, int], width: int) -> None:
    check(make(size, width, SIDES))


@pytest.mark.parametrize(("sides", "expand"), [((1,), 8), ((3,) * 8, 1), ((5, 1), 4), ((5, 3, 7), 1), (SIDES, None)])
def test_any_heads(sides: tuple[int, ...], expand: int | None) -> None:
    check(make((2, 5, 9), 5, sides, expand))


def test_a_map_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_impl, "_FORWARD_BYTES", 1)
    monkeypatch.setattr(numba_impl, "_BACKWARD_BYTES", 1)
    check(make((2, 11, 9), 5, SIDES))


@pytest.mark.usefixtures("two_threads")
def test_shared_between_threads() -> None:
    check(make((3, 7, 9), 20, SIDES))
    operands = to(make((3, 7, 9), 20, SIDES), torch.float32)
    for a, b in zip(*(results(on("numba"), operands) for _ in range(2)), strict=True):
        assert torch.equal(a, b), "two runs differ"


def test_any_memory_layout() -> None:
    x, *others = to(make((2, 5, 6), 20, SIDES), torch.float32)
    turned = x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    for a, b in zip(*(results(on("numba"), (t, *others)) for t in (turned, x)), strict=True):
        assert torch.equal(a, b)


def test_a_nan_is_not_hidden_and_does_not_spread() -> None:
    x, *others = to(make((1, 12, 12), 3, SIDES), torch.float32)
    x.data[0, 5, 5, 3] = math.nan  # the second head's first channel, which a kernel of 5 reads
    y = on("numba")(x, *others).isnan()
    assert y[0, 3:8, 3:8, :8].all()
    assert y.sum() == 5 * 5 * 8


def test_no_memory_is_read_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    given = to(make((2, 5, 6), 5, SIDES), torch.float32)
    exact = results(on("reference"), to(given))
    monkeypatch.setattr(torch, "empty", lambda shape, **kwargs: torch.full(shape, math.nan, **kwargs))
    assert_close(results(numba_run, given), exact, 2e-6)


def numba_run(*operands: torch.Tensor) -> torch.Tensor:
    x, *others, weight, bias = operands
    return numba_impl.mixed_conv(x, others[: len(SIDES)], others[len(SIDES) :], (weight, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    operands = to(make((1, 5, 6), 4, SIDES), dtype)
    found = results(on("numba"), operands)
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(on("reference"), to(operands)), torch.finfo(dtype).eps)


def test_compiled_graphs_keep_the_kernel() -> None:
    operands = to(make((2, 5, 6), 4, SIDES), torch.float32)
    torch._dynamo.reset()  # sizes that it has seen change would be unknown ones
    compiled = torch.compile(on("numba"), fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(on("numba"), operands), 1e-6)


def test_operators_keep_the_rules_of_torch() -> None:
    """Schema, fake implementation, autograd registration and AOT dispatch."""
    shapes = (1, 3, 4, 12), (68, 3), (4, 3), (24, 4), (24,)
    given = [torch.randn(shape, requires_grad=True) for shape in shapes]
    library.opcheck(torch.ops.blockforge.mixed_conv_numba.default, (*given, [3, 5, 3, 5]))
    library.opcheck(torch.ops.blockforge.mixed_conv_numba.default, (*given[:3], None, None, [3, 5, 3, 5]))


def test_what_it_refuses() -> None:
    with pytest.raises(KernelError, match="float64"):
        on("numba")(*make((1, 2, 2), 2))
    with pytest.raises(KernelError, match="65 outputs of a group, at most 64"):
        on("numba")(*to(make((1, 2, 2), 1, (1,), 65), torch.float32))

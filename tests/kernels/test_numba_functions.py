"""The float32 functions that compiled kernels use in place of the library's, and their scratch memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from blockforge.kernels.cpu import jit

Array = np.ndarray[Any, Any]


@jit.jit()
def _exp2(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = jit.exp2(x[i])


@jit.jit()
def _exp(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = jit.exp(x[i])


@jit.jit()
def _softplus(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = jit.softplus(x[i], jit.exp(-abs(x[i])))


@jit.jit()
def _sigmoid(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] = jit.sigmoid(x[i], jit.exp(-abs(x[i])))


@jit.jit()
def _copy(source, target, size):  # type: ignore[no-untyped-def]
    for i in range(size):
        jit.put(target, i, jit.at(source, i))


@jit.jit()
def _scratch(size):  # type: ignore[no-untyped-def]
    buffer = jit.scratch(size)
    return buffer.ctypes.data, buffer


def apply(function: Callable[[Array, Array], None], x: Array) -> Array:
    y = np.full_like(x, np.nan)
    function(x, y)
    return y


def units(ours: Array, exact: Array) -> float:
    """The largest error, in units in the last place of the exact result."""
    return float((np.abs(ours - exact) / np.spacing(exact.astype(np.float32))).max())


def spread(low: float, high: float) -> Array:
    """Two million numbers: evenly over the range, and around 0."""
    every = np.linspace(low, high, 1_000_001, dtype=np.float32)
    return np.concatenate([every, every / np.float32(max(-low, high))])


def test_power_of_two() -> None:
    x = spread(-126, 127)
    assert units(apply(_exp2, x), np.exp2(x.astype(np.float64))) <= 2
    whole = np.arange(-126, 128)
    exact = np.ldexp(np.float32(1), whole)
    assert np.array_equal(apply(_exp2, whole.astype(np.float32)), exact), "whole powers are exact"


def test_exponential() -> None:
    x = spread(-87, 88)
    assert units(apply(_exp, x), np.exp(x.astype(np.float64))) <= 2.5
    assert apply(_exp, np.zeros(1, np.float32)) == 1


@pytest.mark.parametrize(("function", "lowest"), [(_exp2, -126.6), (_exp, -87.8)])
def test_underflow_and_overflow(function: Callable[[Array, Array], None], lowest: float) -> None:
    """Vector code and the scalar code of a loop's rest alike."""
    tiny = np.array([lowest, -150, -1e4, -1e30, -3.4e38, -np.inf] * 7, np.float32)
    assert np.array_equal(apply(function, tiny), np.zeros_like(tiny)), "0, not a subnormal number or NaN"
    huge = np.array([130, 1e4, 3.4e38, np.inf] * 9, np.float32)
    assert (apply(function, huge) > 1.6e38).all()
    assert np.isfinite(apply(function, huge)).all()


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF, 0xFF812345])
def test_a_nan_stays_one(bits: int) -> None:
    x = np.full(37, bits, np.uint32).view(np.float32)
    for function in (_exp2, _exp, _softplus, _sigmoid):
        assert np.isnan(apply(function, x)).all()


def test_softplus_and_sigmoid() -> None:
    x = spread(-87, 88)
    exact = torch.from_numpy(x).double()
    ours = apply(_softplus, x)
    wanted = torch.where(exact > 0, exact, 0) + torch.log1p(torch.exp(-exact.abs()))
    assert np.abs(ours / wanted.numpy() - 1).max() <= 4e-7
    assert np.abs(apply(_sigmoid, x) / torch.sigmoid(exact).numpy() - 1).max() <= 4e-7


def test_addresses_and_arrays_are_read_and_written_alike() -> None:
    source, target = torch.arange(40.0), torch.full((40,), -1.0)
    _copy(source.data_ptr(), target.data_ptr(), 39)
    assert torch.equal(target[:39], source[:39])
    assert target[39] == -1
    array = np.zeros(40, np.float32)
    _copy(source.numpy(), array, 39)
    assert np.array_equal(array[:39], source[:39].numpy())
    assert array[39] == 0


@pytest.mark.parametrize("size", [1, 16, 192, 100_003])
def test_scratch_begins_with_a_cache_line(size: int) -> None:
    for _ in range(5):
        address, buffer = _scratch(size)
        assert address % 64 == 0
        assert buffer.shape == (size,)
        assert not buffer.any()

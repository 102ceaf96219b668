"""What kernels compiled by numba share. Imports numba: only files that a chosen backend loads import this one.

Loops that LLVM turns into vector code have to look simple to it: `at` and `put` read and write an array without
the checks of negative indices, and rows of one buffer lie a constant apart, so that they are seen not to overlap.
Compiled code is cached beside the source, or in the user's cache folder where that cannot be written; where
neither can, each process compiles anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from torch import Tensor

_WORTH_A_THREAD = 50_000
"""Elements of work below which another thread costs more than it saves."""

# Constants in float32: a literal of Python would turn the arithmetic into float64.
ZERO, ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_LOG2_E, _ROUND = np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2
_LOWEST, _HIGHEST = np.float32(-87.3), np.float32(88.3)  # exp of them is still a normal number
_E0, _E1, _E2 = np.float32(1 / 2), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
_E3, _E4, _E5 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)
_L1, _L2 = np.float32(0.3333315796754041), np.float32(0.2001242686173594)
_L3, _L4 = np.float32(0.1398070941374017), np.float32(0.14087328631418045)


def jit(*fastmath: str, inline: bool = False) -> Callable[[Any], Any]:
    """Compile a function on its first call, to run without the interpreter's lock.

    Args:
        fastmath: liberties of LLVM: `contract` (a * b + c rounds once), `reassoc` (sums in any order). Never
            those that assume there is no NaN.
        inline: a helper of other kernels, to be part of their loops.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "fastmath": {"contract", *fastmath},
        "error_model": "numpy",
        "forceinline": inline,
    }

    def decorate(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder for the cache can be written
            return numba.njit(**options)(function)

    return decorate


@intrinsic
def at(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index] of a flat array, index >= 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]], inbounds=True))

    return array.dtype(array, types.int64), generate


@intrinsic
def put(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value of a flat array, index >= 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = make_array(signature.args[0])(context, builder, args[0]).data
        builder.store(args[2], builder.gep(data, [args[1]], inbounds=True))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2 ** n of n + 1.5 * 2 ** 23: the exponent's bits moved into place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        n = builder.sub(builder.bitcast(args[0], int32), ir.Constant(int32, 0x4B400000 - 127))
        return builder.bitcast(builder.shl(n, ir.Constant(int32, 23)), ir.FloatType())

    return types.float32(types.float32), generate


@jit(inline=True)
def exp(x):  # type: ignore[no-untyped-def]  # numba infers the types
    """e ** x in float32 to 2 units in the last place; 0 below -87.3; NaN stays NaN."""
    bounded = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    shifted = bounded * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = bounded - n * _LN2_HIGH - n * _LN2_LOW
    series = ((((_E5 * r + _E4) * r + _E3) * r + _E2) * r + _E1) * r + _E0
    value = (series * r * r + r + ONE) * _power_of_two(shifted)  # type: ignore[call-arg]
    return ZERO if x < _LOWEST else value


@jit(inline=True)
def softplus(x, e):  # type: ignore[no-untyped-def]
    """log(1 + exp(x)) with e = exp(-|x|), to few units in the last place also where it is tiny."""
    s = e / (_TWO + e)
    z = s * s
    log1p_e = _TWO * s * ((((_L4 * z + _L3) * z + _L2) * z + _L1) * z + ONE)
    return (x if x > ZERO else ZERO) + log1p_e


@jit(inline=True)
def sigmoid(x, e):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)) with e = exp(-|x|)."""
    return (ONE if x > ZERO else e) / (ONE + e)


def flat(x: Tensor) -> np.ndarray[Any, Any]:
    """The memory of a CPU tensor from its first element to its last, whatever lies between: to be read
    and written with its strides."""
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
    array: np.ndarray[Any, Any] = x.detach().as_strided((span,), (1,)).numpy()
    return array


def pieces(items: int, elements: int) -> int:
    """Into how many pieces to cut work of so many independent items, that touch so many elements."""
    return max(1, min(items, torch.get_num_threads(), elements // _WORTH_A_THREAD))


def spread(count: int, items: int, run: Callable[[int, int, int], None]) -> None:
    """`run(piece, first, last)` for the items of each of `count` pieces, side by side.

    `run` must spend its time in compiled code. The threads are our own: none of numba's threading layers
    allows every use that PyTorch allows (calls from several threads, forked processes).
    """
    ends = [items * i // count for i in range(count + 1)]
    waiting = [_pool().submit(run, i, ends[i], ends[i + 1]) for i in range(1, count)]
    run(0, ends[0], ends[1])
    for future in waiting:
        future.result()


_pools: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    if not _pools:
        _pools.append(ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="blockforge"))
    return _pools[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork

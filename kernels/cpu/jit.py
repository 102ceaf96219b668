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

_WORTH_A_THREAD = 200_000
"""Elements of work below which another thread costs more than it saves: to wake one took 25 us, an element 0.2 ns with
many states and 0.6 ns with one."""

# Constants in float32: a literal of Python would turn the arithmetic into float64.
ZERO, ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2
_LOWEST, _HIGHEST = np.float32(-127), np.float32(127)  # where 2 ** x has become 0, and still is a number
_ROUND = np.float32(1.5 * 2**23 + 127)  # added to x: its last bits are those of the exponent of 2 ** round(x)
# 2 ** r for |r| <= 1/2, fitted for the least error in units in the last place (1.05; 1.8 with rounding)
_P1, _P2, _P3 = np.float32(0.6931468292480291), np.float32(0.24022237036618072), np.float32(0.055508914384461566)
_P4, _P5 = np.float32(0.009671762912665634), np.float32(0.0013225707452309346)
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


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """A pointer to array[index]; an integer is the address of an array in float32."""
    if isinstance(kind, types.Integer):
        data = builder.inttoptr(array, ir.FloatType().as_pointer())
    else:
        data = make_array(kind)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _item(array: Any) -> Any:
    return types.float32 if isinstance(array, types.Integer) else array.dtype


@intrinsic
def at(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index] of a flat array, or of the float32 numbers at an address; index >= 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args))

    return _item(array)(array, types.int64), generate


@intrinsic
def put(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] = value, see `at`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.int64, _item(array)), generate


@jit()
def scratch(size):  # type: ignore[no-untyped-def]
    """Zeros in float32, flat, from the start of a cache line on: else every vector crosses two of them."""
    buffer = np.zeros(size + 15, np.float32)
    start = -(buffer.ctypes.data // 4) % 16
    return buffer[start : start + size]


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2 ** n of n + _ROUND, n from -126 to 127, and 0 of -127: the last bits moved to the exponent's place."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        int32 = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.bitcast(args[0], int32), ir.Constant(int32, 23)), ir.FloatType())

    return types.float32(types.float32), generate


@jit(inline=True)
def _scaled(r, shifted):  # type: ignore[no-untyped-def]  # numba infers the types
    """2 ** (r + n), |r| <= 1/2, of shifted = n + _ROUND."""
    series = ((((_P5 * r + _P4) * r + _P3) * r + _P2) * r + _P1) * r + ONE
    return series * _power_of_two(shifted)  # type: ignore[call-arg]


@jit(inline=True)
def exp2(x):  # type: ignore[no-untyped-def]
    """2 ** x in float32 to 2 units in the last place; 0 below -126.5, 2 ** 127 above 127; NaN stays NaN."""
    bounded = _LOWEST if x < _LOWEST else x
    bounded = _HIGHEST if bounded > _HIGHEST else bounded
    shifted = bounded + _ROUND
    return _scaled(bounded - (shifted - _ROUND), shifted)


@jit(inline=True)
def exp(x):  # type: ignore[no-untyped-def]
    """e ** x likewise; unlike 2 ** (x log2(e)) it does not lose digits where x is large."""
    lowest, highest = _LOWEST * LN_2, _HIGHEST * LN_2
    bounded = lowest if x < lowest else x
    bounded = highest if bounded > highest else bounded
    shifted = bounded * LOG2_E + _ROUND
    n = shifted - _ROUND
    return _scaled((bounded - n * _LN2_HIGH - n * _LN2_LOW) * LOG2_E, shifted)


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


def pieces(items: int, elements: int) -> int:
    """Into how many pieces to cut work of so many independent items, that touch so many elements."""
    return max(1, min(items, torch.get_num_threads(), elements // _WORTH_A_THREAD))


def spread(count: int, items: int, run: Callable[[int, int, int], None]) -> None:
    """`run(piece, first, last)` for the items of each of `count` pieces, side by side.

    `run` must spend its time in compiled code. The threads are our own: none of numba's threading layers
    allows every use that PyTorch allows (calls from several threads, forked processes).
    """
    if not items:
        return  # an empty batch
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

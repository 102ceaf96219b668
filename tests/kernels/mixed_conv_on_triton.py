"""The Triton kernels of `mixed_conv`, on a CUDA device or, with TRITON_INTERPRET=1, step by step on the CPU.

`test_mixed_conv_triton.py` runs this file: triton must know that it interprets before it is imported.
"""

from __future__ import annotations

import pytest
import torch
from duality import Operands, assert_close, poisoned, results, to
from mixed_conv_cases import make, on
from torch.utils.flop_counter import FlopCounterMode

from blockforge.kernels.backends import KernelError, interpreting

DEVICE = "cpu" if interpreting() else "cuda"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.01, torch.float16: 0.002}
pytestmark = pytest.mark.skipif(not interpreting() and not torch.cuda.is_available(), reason="no CUDA device")


def check(operands: Operands, dtype: torch.dtype = torch.float32) -> None:
    """The kernels' output and gradients are those of the definition on the same numbers, in float64."""
    rounded = to(operands, dtype)
    with poisoned():
        found = results(on("triton"), to(rounded, dtype, DEVICE))
    assert {t.dtype for t in found} == {dtype}
    assert_close(found, results(on("reference"), to(rounded)), TOLERANCE[dtype])


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 1), (1, 9, 5)])
def test_any_size_of_map(size: tuple[int, int, int]) -> None:
    check(make(size, 3))


@pytest.mark.parametrize(
    ("width", "sides", "expand"), [(1, (1,), 1), (5, (3, 3, 3), 3), (40, (3, 1), None), (2, (1, 3, 7, 1), 2)]
)
def test_any_heads(width: int, sides: tuple[int, ...], expand: int | None) -> None:
    check(make((1, 2, 3), width, sides, expand))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision(dtype: torch.dtype) -> None:
    check(make((1, 6, 7), 4, (3, 3)), dtype)


def test_partial_sums_of_several_tiles() -> None:
    check(make((5, 1, 17), 3, (1, 1), 1))


def test_channels_apart_in_memory() -> None:
    x, *others = to(make((1, 2, 3), 2, (3, 1)), torch.float32, DEVICE)
    operands = (x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1), *others)
    assert_close(results(on("triton"), operands), results(on("reference"), operands), 1e-5)


def test_compiles_whole() -> None:
    operands = to(make((1, 2, 3), 2, (3, 1)), torch.float32, DEVICE)
    compiled = torch.compile(on("triton"), fullgraph=True, backend="aot_eager")
    assert_close(results(compiled, operands), results(on("triton"), operands), 1e-6)


@pytest.mark.parametrize("expand", [None, 2])
def test_a_counter_sees_the_convolutions(expand: int | None) -> None:
    operands, counted = to(make((1, 3, 4), 2, expand=expand), torch.float32, DEVICE), []
    for backend in ("triton", "torch"):
        with FlopCounterMode(display=False) as counter:
            on(backend)(*operands)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0


def test_what_it_refuses() -> None:
    with pytest.raises(KernelError, match="float64"):
        on("triton")(*to(make((1, 2, 2), 2), device=DEVICE))
    with pytest.raises(KernelError, match="65 side, at most 63"):
        on("triton")(*to(make((1, 2, 2), 1, (65,)), torch.float32, DEVICE))
    with pytest.raises(KernelError, match="129 outputs of a group, at most 128"):
        on("triton")(*to(make((1, 2, 2), 1, (1,), 129), torch.float32, DEVICE))

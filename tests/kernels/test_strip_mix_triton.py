"""The Triton kernels of `strip_mix`: see `strip_mix_on_triton.py`."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from triton_harness import check_compiles, run_tests

from blockforge.kernels.strip_mix import triton_kernels

TESTS = "strip_mix_on_triton.py"


def test_step_by_step() -> None:
    run_tests(TESTS, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device() -> None:
    run_tests(TESTS, TRITON_INTERPRET="0")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
@pytest.mark.parametrize(("length", "lines", "summed"), [(64, 32, 16), (32, 64, 32), (16, 128, 64)])
def test_compiles_without_a_device(
    length: int, lines: int, summed: int, products: str, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all tiles that are launched."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    shared = {"STRIP": 3, "BLOCK_L": length, "BLOCK_K": min(length, 32), "PRECISION": products}
    forward = shared | {"BLOCK_N": lines, "OF_GRADIENT": False, "HAS_BESIDE": True}
    backward = forward | {"OF_GRADIENT": True, "HAS_BESIDE": False}
    for constants in (forward, backward):
        check_compiles(triton_kernels.mix, capability, constants, num_warps=4, num_stages=1)
    warps = max(4, length // 8)
    check_compiles(triton_kernels.gradients, capability, shared | {"BLOCK_N": summed}, num_warps=warps, num_stages=1)

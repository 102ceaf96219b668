"""The Triton kernels of `strip_mix`: see `strip_mix_on_triton.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from blockforge.kernels.strip_mix import triton_kernels

TESTS = Path(__file__).with_name("strip_mix_on_triton.py")
SHARED_BYTES = 99 * 1024
"""What every device since compute capability 8.0 gives a program."""


def run_tests(**environment: str) -> None:
    """In a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, done.stdout


def test_step_by_step() -> None:
    run_tests(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device() -> None:
    run_tests(TRITON_INTERPRET="0")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
@pytest.mark.parametrize(("length", "lines", "summed"), [(64, 32, 16), (32, 64, 32), (16, 128, 64)])
def test_compiles_without_a_device(
    length: int, lines: int, summed: int, products: str, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all tiles that are launched; and no program asks for more shared memory than a device has."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    options = {"STRIP": 3, "BLOCK_L": length, "BLOCK_K": min(length, 32), "PRECISION": products}
    forward = {"BLOCK_N": lines, "OF_GRADIENT": False, "HAS_BESIDE": True}
    check(triton_kernels.mix, options | forward, capability, 4)
    check(triton_kernels.mix, options | forward | {"OF_GRADIENT": True, "HAS_BESIDE": False}, capability, 4)
    check(triton_kernels.gradients, options | {"BLOCK_N": summed}, capability, max(4, length // 8))


def check(kernel: Any, options: dict[str, Any], capability: int, warps: int) -> None:
    constants = {n: options[n] for n in kernel.arg_names if n in options}
    kinds = {n: "*fp32" if n.endswith("ptr") else "i32" for n in kernel.arg_names}
    source = ASTSource(kernel, kinds | dict.fromkeys(constants, "constexpr"), constants)
    compiled = compile(source, GPUTarget("cuda", capability, 32), {"num_warps": warps, "num_stages": 1})
    assert compiled.metadata.shared <= SHARED_BYTES, f"{kernel.__name__} wants {compiled.metadata.shared} bytes"

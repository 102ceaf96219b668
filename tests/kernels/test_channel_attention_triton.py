"""The Triton kernels of `channel_attention`: see `channel_attention_on_triton.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from triton import JITFunction, compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from blockforge.kernels.channel_attention import triton_impl, triton_kernels

TESTS = Path(__file__).with_name("channel_attention_on_triton.py")
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
@pytest.mark.parametrize("dim", [192, 512])
def test_compiles_without_a_device(dim: int, products: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At SparX-Mamba-T's sizes; and no program asks for more shared memory than a device has."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    launch = triton_impl._Launch(torch.empty(1, 49, dim), 4)
    found = {n: f for n, f in vars(triton_kernels).items() if isinstance(f, JITFunction) and not n.startswith("_")}
    assert set(found) == {"scores", "softmax", "softmax_gradient", "join", "split", "of_scores"}
    for name, kernel in found.items():
        options = (launch.softmax if "softmax" in name else launch.products) | {"Q": 64, "JOINED": True}
        options |= {"PRECISION": products}
        constants = {n: options[n] for n in kernel.arg_names if n in options}
        kinds = {n: "*fp32" if n.endswith("ptr") else "i32" for n in kernel.arg_names} | {"scale": "fp32"}
        kinds = {n: kinds[n] for n in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
        compiled = compile(ASTSource(kernel, kinds, constants), GPUTarget("cuda", capability, 32), {"num_warps": 4})
        assert compiled.metadata.shared <= SHARED_BYTES, f"{name} wants {compiled.metadata.shared} bytes"

"""The Triton kernels of `ssd` and `nc_ssd`: see `duality_on_triton.py`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from triton import JITFunction, compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TESTS = Path(__file__).with_name("duality_on_triton.py")
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


def kernels(operator: str) -> dict[str, Any]:
    """Those that are launched, by name."""
    module = importlib.import_module(f"blockforge.kernels.{operator}.triton_kernels")
    return {n: f for n, f in vars(module).items() if isinstance(f, JITFunction) and not n.startswith("_")}


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
@pytest.mark.parametrize("operator", ["ssd", "nc_ssd"])
def test_compiles_without_a_device(
    operator: str, products: str, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the states of VSSD; and no program asks for more shared memory than a device has."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    found = kernels(operator)
    assert len(found) >= 3
    for name, kernel in found.items():
        options = {"REVERSE": True, "OF_GRADIENT": False, "BACKWARDS": True, "HAS_D": True, "HAS_M": True}
        options |= {"BLOCK": 1024, "STATES": 64, "WIDTH": 64, "PRECISION": products}
        options["Q"] = 32 if "gradients" in name else 64
        constants = {n: options[n] for n in kernel.arg_names if n in options}
        kinds = {n: "*fp32" if n.endswith("ptr") else "i32" for n in kernel.arg_names}
        source = ASTSource(kernel, kinds | dict.fromkeys(constants, "constexpr"), constants)
        compiled = compile(source, GPUTarget("cuda", capability, 32), {"num_warps": 8, "num_stages": 1})
        assert compiled.metadata.shared <= SHARED_BYTES, f"{name} wants {compiled.metadata.shared} bytes"

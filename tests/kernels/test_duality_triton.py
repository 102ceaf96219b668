"""The Triton kernels of `ssd` and `nc_ssd`: see `duality_on_triton.py`."""

from __future__ import annotations

import importlib

import pytest
import torch

pytest.importorskip("triton")

from triton_harness import check_compiles, launched, run_tests

TESTS = "duality_on_triton.py"


def test_step_by_step() -> None:
    run_tests(TESTS, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device() -> None:
    run_tests(TESTS, TRITON_INTERPRET="0")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
@pytest.mark.parametrize("operator", ["ssd", "nc_ssd"])
def test_compiles_without_a_device(
    operator: str, products: str, capability: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the states of VSSD."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    found = launched(importlib.import_module(f"blockforge.kernels.{operator}.triton_kernels"))
    assert len(found) >= 3
    for name, kernel in found.items():
        constants = {"REVERSE": True, "OF_GRADIENT": False, "BACKWARDS": True, "HAS_D": True, "HAS_M": True}
        constants |= {"BLOCK": 1024, "STATES": 64, "WIDTH": 64, "PRECISION": products}
        constants["Q"] = 32 if "gradients" in name else 64
        check_compiles(kernel, capability, constants, num_warps=8, num_stages=1)

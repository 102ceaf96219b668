"""The Triton kernels of `mixed_conv`: see `mixed_conv_on_triton.py`."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from triton_harness import check_compiles, launched, run_tests

from blockforge.kernels.mixed_conv import triton_impl, triton_kernels

TESTS = "mixed_conv_on_triton.py"


def test_step_by_step() -> None:
    run_tests(TESTS, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device() -> None:
    run_tests(TESTS, TRITON_INTERPRET="0")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("mixed", [True, False])
def test_compiles_without_a_device(mixed: bool, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At SMT-T's first stage."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    x, weight = torch.empty(8, 56, 56, 64), torch.empty(9 + 25 + 49 + 81, 16)
    launch = triton_impl.Launch(x, weight, torch.empty(128, 4) if mixed else None, [3, 5, 7, 9])
    found = launched(triton_kernels)
    assert set(found) == {"mixed", "mixing_gradients", "input_gradient", "kernel_gradients"}
    for name, kernel in found.items():
        options = launch.mixing if name.startswith("mix") else launch.wide
        check_compiles(kernel, capability, options, num_warps=options["num_warps"])

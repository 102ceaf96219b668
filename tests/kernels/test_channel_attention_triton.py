"""The Triton kernels of `channel_attention`: see `channel_attention_on_triton.py`."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from triton_harness import check_compiles, launched, run_tests

from blockforge.kernels.channel_attention import triton_impl, triton_kernels

TESTS = "channel_attention_on_triton.py"


def test_step_by_step() -> None:
    run_tests(TESTS, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_device() -> None:
    run_tests(TESTS, TRITON_INTERPRET="0")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("products", ["tf32", "tf32x3"])
@pytest.mark.parametrize("dim", [192, 512])
def test_compiles_without_a_device(dim: int, products: str, capability: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At SparX-Mamba-T's sizes."""
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    launch, found = triton_impl._Launch(torch.empty(1, 49, dim), 4), launched(triton_kernels)
    assert set(found) == {"scores", "softmax", "softmax_gradient", "join", "split", "of_scores"}
    for name, kernel in found.items():
        constants = (launch.softmax if "softmax" in name else launch.products) | {"Q": 64, "JOINED": True}
        check_compiles(kernel, capability, constants | {"PRECISION": products}, num_warps=4)

"""The Triton kernels of the scans, step by step through Triton's interpreter, against the definition in float64.

The interpreter must be chosen before a kernel is imported, so the checks run in a process of their own
(`scans_on_triton.py`) that this test starts where there is no CUDA device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")


@pytest.mark.parametrize("case", ["forward_and_backward", "half_precision", "maps"])
def test_interpreted(case: str) -> None:
    file = Path(__file__).parent / "scans_on_triton.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(file), case, "cpu"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ["forward_and_backward", "half_precision", "maps", "large"])
def test_on_a_device(case: str) -> None:
    file = Path(__file__).parent / "scans_on_triton.py"
    done = subprocess.run([sys.executable, str(file), case, "cuda"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

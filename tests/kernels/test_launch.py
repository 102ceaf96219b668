"""How Triton kernels are started, and what they must not rely on; without a device."""

from __future__ import annotations

import ast
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import blockforge as bf
from blockforge.kernels import KernelError
from blockforge.kernels.cross_scan.directions import Order
from blockforge.kernels.gpu.launch import start

KERNELS = Path(bf.__file__).parents[1] / "kernels"


class _Kernel:
    """In place of one that `triton.jit` made."""

    def __init__(self) -> None:
        self.started: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **options: self.started.append(grid)


def test_a_kernel_starts_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    @contextlib.contextmanager
    def device(which: torch.device) -> Iterator[None]:
        entered.append(which)
        yield
        entered.append("left")

    monkeypatch.setattr(torch.cuda, "device", device)
    kernel = _Kernel()
    with FakeTensorMode():
        x = torch.empty(4, device="cuda:1")
        start(kernel, (2, 3), x, 4, x, Q=1)
        assert entered == [torch.device("cuda:1"), "left"]
        with pytest.raises(KernelError, match="on several devices: cuda:0, cuda:1"):
            start(kernel, (1,), x, torch.empty(4, device="cuda:0"))
    assert kernel.started == [(2, 3)]


def test_what_a_kernel_cannot_read_is_refused() -> None:
    kernel, x = _Kernel(), torch.zeros(4)
    with pytest.raises(KernelError, match=r"read no torch\.float64"):
        start(kernel, (1,), x, x.double())
    with pytest.raises(KernelError, match="1 x 65536 programs is larger than a device allows"):
        start(kernel, (1, 65536), x)
    start(kernel, (1, 0, 1), x)  # an empty batch
    assert not kernel.started


def test_every_kernel_starts_there() -> None:
    """None is called by itself, `kernel[grid](...)`; and no scan of pairs is asked to run backwards."""
    trees = {p: ast.parse(p.read_text(encoding="utf-8")) for p in KERNELS.rglob("*triton*.py")}
    calls = [(p, n) for p, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert len(calls) > 100
    own = [f"{p}:{n.lineno}" for p, n in calls if p.stem == "triton_impl" and isinstance(n.func, ast.Subscript)]
    assert not own
    backwards = [
        f"{p}:{n.lineno}"
        for p, n in calls
        if isinstance(n.func, ast.Attribute) and n.func.attr == "associative_scan" and any(k.arg for k in n.keywords)
    ]
    assert not backwards


def test_an_order_is_copied_once() -> None:
    device = torch.device("cpu")
    with torch.inference_mode():
        first = Order(3, 4, "columns_back", 2).on(device)
    assert Order(3, 4, "columns_back", 2).on(device) is first
    assert first.dtype == torch.int32
    assert not first.is_inference()
    assert first.tolist() == Order(3, 4, "columns_back", 2).array().tolist()


SETTINGS = {
    "": "tf32x3",
    "torch.backends.cuda.matmul.allow_tf32 = True": "tf32",
    "torch.set_float32_matmul_precision('high')": "tf32",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": "tf32",
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": "tf32x3",
    "torch.backends.fp32_precision = 'tf32'": "tf32",
    "torch.backends.fp32_precision = 'tf32'; torch.backends.cuda.matmul.fp32_precision = 'ieee'": "tf32x3",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_precision_by_either_setting(setting: str) -> None:
    """In a process of its own: torch does not let one go back to the older setting."""
    if "fp32_precision" in setting and not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has the older setting alone")
    code = (
        f"import torch; {setting}\nfrom blockforge.kernels.gpu.tiles import precision\nprint(precision(torch.zeros(1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == SETTINGS[setting], done.stderr

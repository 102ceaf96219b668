"""How Triton kernels are tested where there is no device: step by step in a process of its own, and by compiling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from triton import JITFunction, compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SHARED_BYTES = 99 * 1024
"""What every device since compute capability 8.0 gives a program."""


def run_tests(file: str, **environment: str) -> None:
    """Those of a file beside this one, in a process of its own."""
    tests = Path(__file__).with_name(file)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, done.stdout


def launched(module: ModuleType) -> dict[str, Any]:
    """The kernels of a `triton_kernels.py`, by name, without what they call."""
    return {n: f for n, f in vars(module).items() if isinstance(f, JITFunction) and not n.startswith("_")}


def check_compiles(kernel: Any, capability: int, constants: dict[str, Any], **options: int) -> None:
    """It compiles for a capability, and asks for no more shared memory than a device has. `constants` may have those
    of other kernels too; `options` are the compiler's."""
    constants = {n: constants[n] for n in kernel.arg_names if n in constants}
    kinds = {n: "*fp32" if n.endswith("ptr") else "fp32" if n == "scale" else "i32" for n in kernel.arg_names}
    source = ASTSource(kernel, kinds | dict.fromkeys(constants, "constexpr"), constants)
    compiled = compile(source, GPUTarget("cuda", capability, 32), options)
    assert compiled.metadata.shared <= SHARED_BYTES, f"{kernel.__name__} wants {compiled.metadata.shared} bytes"

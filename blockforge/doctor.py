"""What this machine has, and what blockforge would therefore run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from blockforge.console.text_table import Label, TextTable, Words


class Finding(NamedTuple):
    """One line of the report. `note` says why, or what would change it."""

    section: str
    name: str
    value: str
    note: str = ""


def examine() -> list[Finding]:
    """Everything that is worth knowing when something does not run, or runs slowly."""
    return [*_versions(), *_devices(), *_kernels(), *_programs()]


def table(findings: list[Finding]) -> TextTable:
    """The report, to be printed by rich."""
    shown = TextTable(Label(""), Label("what"), Words("found"), Words("note"))
    section = ""
    for finding in findings:
        if section and finding.section != section:
            shown.add_section()
        shown.add_row(finding.section if finding.section != section else "", *finding[1:])
        section = finding.section
    return shown


def _versions() -> Iterator[Finding]:
    """Python, blockforge, and whatever its own metadata says it needs."""
    yield Finding("versions", "python", platform.python_version(), platform.platform())
    yield Finding("versions", "blockforge", importlib.metadata.version("blockforge"))
    for requirement in importlib.metadata.requires("blockforge") or ():
        wanted, _, condition = requirement.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", wanted.strip())[0]
        if "extra" in condition or name == "blockforge":
            continue
        try:
            yield Finding("versions", name, importlib.metadata.version(name), f"needs {wanted.removeprefix(name)}")
        except importlib.metadata.PackageNotFoundError:
            where = f", only where {condition.strip()}" if condition else ""
            yield Finding("versions", name, "not installed", f"needs {wanted.removeprefix(name)}{where}")


def _devices() -> Iterator[Finding]:
    import torch

    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    yield Finding(
        "devices",
        "cpu",
        cpu,
        f"capability {torch.backends.cpu.get_cpu_capability()}; OMP_NUM_THREADS sets the threads",
    )
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = f"torch is built for {built}, but finds no device" if built else "this torch is built for CPUs only"
        yield Finding("devices", "cuda", "none", why)
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        memory = f"{device.total_memory / 2**30:.0f} GiB, capability {device.major}.{device.minor}"
        yield Finding("devices", f"cuda:{i}", device.name, memory)


def _kernels() -> Iterator[Finding]:
    """Which code runs the blocks."""
    import torch

    from blockforge.kernels import operators

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name, operator in operators().items():
        for device in devices:
            choice = operator.choose(torch.empty(0, device=device))
            yield Finding("kernels", f"{name} on {device}", choice.backend, choice.why)
    onednn = torch.backends.mkldnn.is_available()
    note = "CPU convolutions and linear layers use it" if onednn else "CPU convolutions run on torch's slower ones"
    yield Finding("kernels", "oneDNN", "present" if onednn else "absent", note)
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    mkl = "MKL" if torch.backends.mkl.is_available() else blas[1] if blas else "unknown"
    yield Finding("kernels", "BLAS", mkl, "matrix products on the CPU")


def _programs() -> Iterator[Finding]:
    dot = shutil.which("dot")
    note = "blockforge graph draws png with it" if dot else "blockforge graph draws svg itself; png needs dot"
    yield Finding("programs", "graphviz dot", dot or "absent", note)

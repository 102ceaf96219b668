"""What a machine can hold, asked before anything is allocated: memory that runs out ends the process without a word."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import torch

from blockforge.errors import BlockforgeError
from blockforge.units import format_bytes

_CGROUP = Path("/sys/fs/cgroup")


class CapacityError(BlockforgeError, MemoryError):
    """Something that needs more memory than the device has."""


def need(what: str, elements: int, hint: str) -> None:
    """Refuse `elements` values of the default dtype that the default device can never hold.

    On the meta device, and under torch's fake tensors, nothing is allocated and everything passes.

    Args:
        what: for the message: `giant has 100.0G parameters`.
    Raises: CapacityError.
    """
    probe = torch.empty(0)
    if probe.is_meta or type(probe) is not torch.Tensor:
        return
    size, have = elements * probe.element_size(), capacity(probe.device)
    if have is not None and size > have:
        where = "this machine" if probe.device.type == "cpu" else str(probe.device)
        raise CapacityError(f"{what}: {format_bytes(size)}, and {where} has {format_bytes(have)}\n  hint: {hint}")


def capacity(device: torch.device) -> int | None:
    """Bytes that a device has in all, or that this process may use; None: not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return _main_memory() if device.type == "cpu" else None


@functools.cache
def _main_memory() -> int | None:
    """The machine's memory, or less where a control group or a limit of the process allows less."""
    limits = [_limit(file) for file in _limit_files()]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        limits.append(soft if soft != resource.RLIM_INFINITY else None)
    return min((limit for limit in limits if limit), default=None)


def _limit_files() -> list[Path]:
    """Where the control groups of this process say what they allow, in both versions."""
    files = [_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"]
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return files
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root, name = (_CGROUP, "memory.max") if not controllers else (_CGROUP / "memory", "memory.limit_in_bytes")
        if controllers in ("", "memory"):
            group = root / path.lstrip("/")
            files += [folder / name for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return files


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max"
        return None

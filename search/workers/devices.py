"""Which GPUs a worker sees: each its own, as far as they go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from blockforge.errors import SearchError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(env: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs of this process, as `CUDA_VISIBLE_DEVICES` names them: by number, or by UUID."""
    if (named := env.get(VISIBLE)) is not None:
        gpus = [gpu.strip() for gpu in named.split(",")]
        return gpus[: next((i for i, gpu in enumerate(gpus) if not gpu or gpu.startswith("-")), len(gpus))]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def check_share(gpus_per_worker: float | None) -> None:
    """Raises: SearchError for what is neither a whole number of GPUs nor an even part of one."""
    if gpus_per_worker is None:
        return
    parts = 1 / gpus_per_worker if 0 < gpus_per_worker < 1 else gpus_per_worker
    if gpus_per_worker <= 0 or abs(parts - round(parts)) > 0.1:
        hint = "1, 2, ... GPUs, or 0.5, 0.25, ... of one"
        raise SearchError(f"{gpus_per_worker:g} GPUs a worker cannot be dealt\n  hint: {hint}")


def dealt(workers: int, gpus: Sequence[str], gpus_per_worker: float | None) -> list[str | None]:
    """The `CUDA_VISIBLE_DEVICES` of each worker; None: as this process has it, which sees none.

    Args:
        gpus_per_worker: a whole number, or a part of one GPU; None: one each, in turns where there are fewer.
    Raises: SearchError if there are too few.
    """
    check_share(gpus_per_worker)
    if gpus_per_worker is None:
        return [gpus[i % len(gpus)] if gpus else None for i in range(workers)]
    together = max(round(1 / gpus_per_worker), 1)
    needed, fewer = workers * gpus_per_worker, len(gpus) * together // max(round(gpus_per_worker), 1)
    if workers > fewer:
        hint = f"--workers {fewer}, or fewer GPUs each" if fewer else "a machine with GPUs, or no --gpus-per-worker"
        text = f"{workers} workers with {gpus_per_worker:g} GPUs each need {needed:g}; {len(gpus)} can be seen here"
        raise SearchError(f"{text}\n  hint: {hint}")
    if gpus_per_worker < 1:
        return [gpus[i // together] for i in range(workers)]
    each = round(gpus_per_worker)
    return [",".join(gpus[i * each : (i + 1) * each]) for i in range(workers)]


def ray_share(workers: int, gpus: float, gpus_per_worker: float | None) -> float:
    """The GPUs that each Ray task asks for, on a cluster that has so many.

    Raises: SearchError if the cluster has too few.
    """
    check_share(gpus_per_worker)
    if gpus_per_worker is None:
        return 1.0 if gpus >= workers else int(100 * gpus / workers) / 100
    if workers * gpus_per_worker > gpus:
        text = f"{workers} workers with {gpus_per_worker:g} GPUs each need {workers * gpus_per_worker:g}"
        raise SearchError(f"{text}; the Ray cluster has {gpus:g}\n  hint: fewer --workers, or fewer GPUs each")
    return gpus_per_worker

"""The selective scans of a map in several directions, and their sum: what VMamba calls cross-scan and cross-merge,
without a copy of the map for each direction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from blockforge.kernels.backends import Operator, anywhere
from blockforge.kernels.costs import costed
from blockforge.kernels.cross_scan import torch_impl
from blockforge.kernels.cross_scan.directions import DIRECTIONS, Direction
from blockforge.kernels.selective_scan import fits_numba, fits_triton

__all__ = ["DIRECTIONS", "OPERATOR", "Direction", "cross_scan", "workspace"]


OPERATOR = Operator("cross_scan", ("numba",), triton=fits_triton, numba=fits_numba, torch=anywhere, reference=anywhere)


def cross_scan(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    dt_weight: Tensor | None,
    A: Tensor,
    D: Tensor | None = None,
    *,
    dt_bias: Tensor | None = None,
    directions: tuple[Direction, ...],
    window: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Scan a map in K directions and add up the results. Each direction visits the positions in its own order,
    with its own steps softplus(dt_weight dt + dt_bias), A, B, C and D; see `selective_scan`.

    Args:
        x: the map, (batch, height, width, channels).
        dt: what the steps are made of, (batch, height, width, K, rank).
        B, C: input and output maps of each position, (batch, height, width, K, N).
        dt_weight: (K, channels, rank); None: dt holds the steps of each channel, rank is the channels, and standard
            operators run it.
        A: (K, channels, N), negative.
        D: weight of the map in the output, (K, channels), or None.
        dt_bias: (K, channels), or None.
        directions: K of rows, columns, rows_back, columns_back.
        window: visit the map in tiles of this side; None: in whole lines.
        backend: what runs it, see `blockforge.kernels.backends`; None: as the context or the environment says.

    Returns:
        The sum of the scans, like x; half precision is computed in float32, float64 where x or A is.

    Raises: ValueError if the shapes do not fit; KernelError if the backend cannot run it.
    Reference: VMamba: Visual State Space Model, https://arxiv.org/abs/2401.10166, section 4.3.
    """
    _check(x, dt, B, C, dt_weight, A, D, dt_bias, directions)
    run: Callable[..., Tensor] = torch_impl.cross_scan
    if dt_weight is not None:
        run = OPERATOR.pick(x, backend, double=torch.float64 in (x.dtype, A.dtype))
    y: Tensor = run(x, dt, B, C, dt_weight, A, D, dt_bias, directions, window)
    return y


def workspace(
    positions: int, dim: int, d_state: int, rank: int, directions: tuple[Direction, ...], window: int | None = None
) -> int:
    """Most elements alive at once without gradients for one map, its result included, on the backend that costs are
    of (`kernels.costs`)."""
    if costed() == "numba":
        return 2 * positions * dim  # the sum, and one direction's steps
    return torch_impl.workspace(positions, dim, d_state, rank, directions, window)


def _check(
    x: Tensor, dt: Tensor, B: Tensor, C: Tensor, dt_weight: Tensor | None, A: Tensor, D: Tensor | None,
    dt_bias: Tensor | None, directions: tuple[Direction, ...],
) -> None:  # fmt: skip
    if x.ndim != 4 or 0 in x.shape[1:3]:
        raise ValueError(f"x must be (batch, height, width, channels), not {tuple(x.shape)}")
    if not directions or not set(directions) <= set(DIRECTIONS):
        raise ValueError(f"directions must be some of {', '.join(DIRECTIONS)}, not {directions}")
    if A.ndim != 3 or (dt_weight is not None and dt_weight.ndim != 3):
        raise ValueError("A must be (K, channels, N) and dt_weight (K, channels, rank)")
    size, dim, count = tuple(x.shape[:3]), x.shape[3], len(directions)
    mapped, rank = (*size, count, A.shape[2]), dim if dt_weight is None else dt_weight.shape[2]
    wanted: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "A": (A, (count, dim, A.shape[2])),
        "dt_weight": (dt_weight, (count, dim, rank)),
    }
    wanted |= {"dt": (dt, (*size, count, rank)), "B": (B, mapped), "C": (C, mapped)}
    wanted |= {"D": (D, (count, dim)), "dt_bias": (dt_bias, (count, dim))}
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, not {tuple(tensor.shape)}")

"""In which order a scan visits the positions of a map.

`rows` goes line by line, `columns` column by column, `_back` from the last position to the first. In a `window` the
map is visited tile by tile, and each tile line by line (or column by column).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

Direction = Literal["rows", "columns", "rows_back", "columns_back"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


def lines(directions: tuple[Direction, ...]) -> Iterator[tuple[bool, list[int]]]:
    """For rows and for columns: whether it is columns, and the numbers of the directions along them."""
    for columns, names in ((False, ("rows", "rows_back")), (True, ("columns", "columns_back"))):
        if numbers := [i for i, d in enumerate(directions) if d in names]:
            yield columns, numbers


class Order(NamedTuple):
    """Row-major numbers of the positions of a map as `direction` visits them. `window` 0: no tiles."""

    height: int
    width: int
    direction: Direction
    window: int = 0

    def array(self) -> np.ndarray[Any, Any]:
        """(H * W,) int64, the same array for every caller."""
        return _array(self)

    def on(self, device: torch.device) -> Tensor:
        """(H * W,) int32 on a device, the same tensor for every caller: to copy it there takes a synchronisation."""
        return _on_device(self, device)


@lru_cache(maxsize=256)
def _array(order: Order) -> np.ndarray[Any, Any]:
    height, width, direction, window = order
    numbers = np.arange(height * width, dtype=np.int64).reshape(height, width)
    if direction.startswith("columns"):
        numbers = numbers.T
    flat = numbers.flatten()
    if window:
        flat = flat[tile_order(*numbers.shape, window, torch.device("cpu")).numpy()]
    return np.array(flat[::-1] if direction.endswith("back") else flat, np.int64)


@lru_cache(maxsize=256)
def _on_device(order: Order, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it outlives the mode of the first caller
        return torch.from_numpy(order.array()).to(device, torch.int32)


def unrolled(x: Tensor, columns: bool, window: int) -> Tensor:
    """x_BHWC -> x_BLC in the order of a scan along rows or columns, a view where that is possible."""
    if columns:
        x = x.transpose(1, 2)
    numbers = tile_order(x.shape[1], x.shape[2], window, x.device) if window else None
    x = x.flatten(1, 2)
    return x if numbers is None else x[:, numbers]


def rolled(y: Tensor, height: int, width: int, columns: bool, window: int) -> Tensor:
    """The inverse of `unrolled`."""
    if columns:
        height, width = width, height
    if window:
        y = y[:, tile_order(height, width, window, y.device).argsort()]
    y = y.unflatten(1, (height, width))
    return y.transpose(1, 2) if columns else y


def tile_order(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """The row-major numbers of all positions, tile by tile, the positions of a tile in row-major order."""
    y = torch.arange(height, dtype=torch.int64, device=device)[:, None]
    x = torch.arange(width, dtype=torch.int64, device=device)
    tile = (y // window) * width + x // window
    inside = (y % window) * window + x % window
    return (tile * window**2 + inside).flatten().argsort()

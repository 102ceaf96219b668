"""Rows of tokens and maps in memory: taken apart, and put together.

Shapes: E extra tokens, L = H * W positions of the map beside them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blockforge.blocks.layers import same_size


def apart(x_B1NC: Tensor, extra: int, size: tuple[int, int], what: str) -> tuple[Tensor, Tensor]:
    """The tokens (B, 1, E, C) and the map (B, H, W, C) of a row of both: views.

    Raises: OpError if the map beside the tokens has another number of positions than one of `size`, which `what` was
        built for.
    """
    same_size(x_B1NC, (1, extra + size[0] * size[1]), what)
    return x_B1NC[:, :, :extra], x_B1NC[:, 0, extra:].unflatten(1, size)


def beside(tokens_B1EC: Tensor, x_BHWC: Tensor) -> Tensor:
    """The row of tokens and a map, (B, 1, E + L, C)."""
    return torch.cat([tokens_B1EC, x_BHWC.flatten(1, 2).unsqueeze(1)], dim=2)

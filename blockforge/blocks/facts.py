"""What a block says of itself at a place, asked once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from blockforge.blocks import tokens
from blockforge.blocks.base import AnyOp, AnyPlaced, Cost, Shape
from blockforge.errors import OpError
from blockforge.kernels.costs import DEFAULT, costs_of


class Facts(NamedTuple):
    """Shape, cost, workspace and number of parts of a block at one place."""

    out_shape: Shape
    cost: Cost
    workspace: int
    num_parts: int


def facts(placed: AnyPlaced, backend: str = DEFAULT) -> Facts:
    """What a block says on a backend; equal blocks at equal places are asked once. Raises: OpError where it cannot
    stand."""
    return _facts(placed, backend)


@functools.lru_cache(65_536)
def _facts(placed: AnyPlaced, backend: str) -> Facts:
    op, place = placed.op, placed.told
    op.check(*place)
    out = tokens.given(op, placed.place, op.out_shape(*place))
    if min(out[:3]) < 1:
        hint = "a larger input.size, or fewer stages and downsamples"
        raise OpError(f"'{op.op}' leaves nothing of the map", hint=hint, code="map-too-small")
    with costs_of(backend):
        return Facts(out, op.cost(*place), op.workspace(*place), op.num_parts(*place))


@functools.lru_cache(4096)
def resolved(placed: AnyPlaced) -> AnyOp:
    """See `Op.resolved`."""
    return placed.resolved()


@functools.lru_cache(4096)
def parameters(op: AnyOp) -> dict[str, Any]:
    """All parameters of a block, its defaults included. Shared: not to be changed."""
    return op.parameters_dict()

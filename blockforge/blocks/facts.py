"""What a block says of itself at a place, asked once."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from typing import Any, NamedTuple

from blockforge.blocks import tokens
from blockforge.blocks.base import AnyOp, AnyPlaced, Cost, Shape
from blockforge.errors import BlockforgeError, OpError
from blockforge.kernels.costs import DEFAULT, costed, costs_of
from blockforge.plugins import defined_in, is_ours, plugin_code, plugin_failure


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
    op, module = placed.op, type(placed.op).__module__
    try:
        said = _said(placed, backend)
        return said if is_ours(module) else _right(said, op.op, module)
    except BlockforgeError:
        raise
    except (Exception, SystemExit) as e:
        if (failed := plugin_failure(e, f"block '{op.op}'", module)) is None:
            raise
        raise OpError(failed, code="plugin") from e


def _right(said: Facts, name: str, module: str) -> Facts:
    """What a plugin's block says of itself. Raises: OpError where that is nothing of the kind."""
    for method, value in said._asdict().items():
        kind = {"out_shape": Shape, "cost": Cost}.get(method, int)
        if not isinstance(value, kind):
            text = f"{method} of block '{name}' ({defined_in(module)}) gives {type(value).__name__}"
            raise OpError(text, hint=f"it gives {'a ' * (kind is not int)}{kind.__name__}", code="plugin")
    return said


def _said(placed: AnyPlaced, backend: str) -> Facts:
    op, place = placed.op, placed.told
    op.check(*place)
    out = tokens.given(op, placed.place, op.out_shape(*place))
    if min(out[:3]) < 1:
        hint = "a larger input.size, or fewer stages and downsamples"
        raise OpError(f"'{op.op}' leaves nothing of the map", hint=hint, code="map-too-small")
    with costs_of(backend) if costed() != backend else nullcontext():
        return Facts(out, op.cost(*place), op.workspace(*place), op.num_parts(*place))


@functools.lru_cache(4096)
def resolved(placed: AnyPlaced) -> AnyOp:
    """See `Op.resolved`."""
    op = placed.op
    with plugin_code(f"block '{op.op}'", type(op).__module__, functools.partial(OpError, code="plugin")):
        return placed.resolved()


@functools.lru_cache(4096)
def parameters(op: AnyOp) -> dict[str, Any]:
    """All parameters of a block, its defaults included. Shared: not to be changed."""
    return op.parameters_dict()

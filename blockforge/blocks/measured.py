"""The workspace of a block that does not state it: the most that lives at once when its module runs.

The module is built and run on the meta device, where tensors have shapes and no memory, as the backend that costs are
of would run it. It takes milliseconds, where a stated workspace takes microseconds.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from blockforge.blocks.live_storages import LiveStorages, OutOfTimeError, growth
from blockforge.blocks.shapes import Shape
from blockforge.blocks.tokens import maps_at
from blockforge.errors import OpError
from blockforge.kernels.costs import costed, rehearsal

if TYPE_CHECKING:
    from torch import Tensor

    from blockforge.blocks.base import AnyOp, Kind

SECONDS = 20.0
"""Of a processor, for which a block may run on the meta device; one of ours takes a tenth at most."""
FLOAT32 = 4


def measured_workspace(op: AnyOp, place: tuple[Any, ...]) -> int:
    """What `Op.workspace` says, measured; equal blocks at equal places are measured once.

    Raises: OpError if its module does not run on the meta device, or not to an end in bounded time.
    """
    return _measured(op, place, costed())


@functools.lru_cache(65_536)
def _measured(op: AnyOp, place: tuple[Any, ...], backend: str) -> int:
    until = time.thread_time() + SECONDS  # of work: on a busy machine the clock says nothing of a block
    with rehearsal(backend), torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        try:
            module = op.build(*place).eval()

            def course_of(batch: int) -> list[int]:
                inputs = example_maps(op.kind, place, functools.partial(_empty, batch, op.layout == "NCHW"))
                live = LiveStorages(until=until)
                with live:
                    module(*inputs)
                return live.course

            grown, _ = growth(course_of)
        except OutOfTimeError as e:
            raise _unknown(op, f"{e}, {SECONDS:.0f} s") from e
        except (NotImplementedError, RuntimeError, TypeError) as e:
            reason = str(e).strip().splitlines()[0][:200]
            raise _unknown(op, f"its module does not run on the meta device: {reason}") from e
    return grown // FLOAT32


def example_maps(kind: Kind, place: tuple[Any, ...], of_shape: Callable[[Shape], Tensor]) -> tuple[Any, ...]:
    """What the module of a block is called with at a place: `(x_BHWC,)`, for an aggregator `(x_BHWC, sources)`, for a
    join its maps. `of_shape` makes a map."""
    maps = tuple(map(of_shape, maps_at(kind, place)))
    return (*maps, [of_shape(place[0]._replace(dim=dim)) for dim in place[1]]) if kind == "aggregator" else maps


def _empty(batch: int, nchw: bool, shape: Shape) -> Tensor:
    x_BHWC = torch.empty(batch, *shape.row)
    return x_BHWC.permute(0, 3, 1, 2) if nchw else x_BHWC


def _unknown(op: AnyOp, why: str) -> OpError:
    hint = f"give {type(op).__name__} a method workspace(), or let forward() look at shapes and not at values"
    return OpError(f"the memory that '{op.op}' takes is not known: {why}", hint=hint, code="memory-unknown")

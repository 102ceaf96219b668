"""What every building block must keep, one function a law: `check_x(op, *place)` raises AssertionError."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from blockforge.blocks.base import AnyOp, Mixer, Op, Place, Placed, Shape
from blockforge.blocks.tokens import maps_at
from blockforge.testing.checkpointing import check_checkpointing
from blockforge.testing.copies import check_buffers, check_copies, check_parameters, check_reset
from blockforge.testing.examples import accepts, example_places
from blockforge.testing.figures import check_costs, check_shape, check_training_memory, check_workspace
from blockforge.testing.forms import check_filter, check_program
from blockforge.testing.gradients import check_gradcheck, check_gradients, check_training
from blockforge.testing.leaves import check_hooks, check_layout, check_parametrized, check_replaced
from blockforge.testing.results import (
    check_batch,
    check_bfloat16,
    check_deterministic,
    check_head,
    check_overwrites,
    check_sizes,
    check_tokens,
)


@overload
def check_op(op: AnyOp) -> None: ...
@overload
def check_op(op: Op[*Place], *place: *Place) -> None: ...
def check_op(op: AnyOp, *place: Any) -> None:  # type: ignore[misc]  # mypy asks for each Op[*Place] apart
    """Run every check on a block at a place, or at every example place of its kind that it accepts.

    Raises: AssertionError that names the block, the place and the law.
    """
    places: list[tuple[Any, ...]] = [place] if place else [p for p in example_places(op.kind) if accepts(op, *p)]
    assert places, f"{op.op} accepts no example place of a {op.kind}; give one: check_op(op, *place)"
    for at in places:
        for check in CHECKS:
            try:
                check(op, *Placed(op, at).told)
            except AssertionError as e:
                raise AssertionError(f"{check.__name__}: {op.op}({op}) at {at}: {e}") from e


def check_fed(op: Op[*Place], *place: *Place) -> None:
    """Behind an aggregator a mixer works at the width it asks for, and gives the map's own width."""
    if not isinstance(op, Mixer):
        return
    (shape,) = maps_at(op.kind, place)
    fed, width = op.fed(shape.dim)
    out_shape = fed.out_shape(Shape(shape.height, shape.width, width))
    assert out_shape == shape, f"fed at width {width} it gives {out_shape}, not {shape}"
    if (fed, width) != (op, shape.dim):
        for check in CHECKS:
            if check is not check_fed:  # what is fed once is not fed again
                check(fed, Shape(shape.height, shape.width, width))


CHECKS: tuple[Callable[..., None], ...] = (
    check_costs,
    check_shape,
    check_workspace,
    check_training_memory,
    check_gradients,
    check_gradcheck,
    check_batch,
    check_deterministic,
    check_overwrites,
    check_copies,
    check_buffers,
    check_reset,
    check_layout,
    check_hooks,
    check_replaced,
    check_parametrized,
    check_parameters,
    check_training,
    check_checkpointing,
    check_bfloat16,
    check_sizes,
    check_tokens,
    check_fed,
    check_head,
    check_program,
    check_filter,
)
"""Every law, in the order in which `check_op` asks."""

"""Blocks written in Python whose modules stand in a row, as programs: see `Op.as_program`."""

from __future__ import annotations

from collections.abc import Iterable

from blockforge.blocks.base import AnyOp, Shape
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.steps import Steps

Member = AnyOp | tuple[AnyOp, int] | None
"""A part, and the width that it is asked for if it is asked; None: a module that changes nothing."""


def add_row(steps: Steps, x: int, members: Iterable[Member], *within: str) -> int:
    """Parts in a row that read the value `x`, called by their numbers as the modules of `blocks.maps.Maps` are."""
    for number, member in enumerate(members):
        if member is not None:
            op, dim = member if isinstance(member, tuple) else (member, None)
            x = steps.step(op, (x,), dim, (*within, str(number)))
    return x


def row(shape: Shape, *members: Member) -> Program:
    """A block that is such a row."""
    steps = Steps(shape)
    add_row(steps, 0, members)
    return Program(shape, tuple(steps.steps))

"""Rolled tiles while a program is written: which of its values stand at the positions of a tile.

A mask keeps apart the positions of the map where it was cut. So it serves what reads these positions: the tile itself,
and what is as large and was made of it, position by position or of neighbours. What is pooled or unfolded, made
a grid of a size of its own, cut into tiles again or turned on its side stands at other positions; a map that comes out
of other tiles, or is turned back, as large as it went in, stands where it stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blockforge.blocks.base import AnyPlaced, Placed, Shape
from blockforge.blocks.part import Join
from blockforge.errors import OpError

MOVED = 0
Rolled = int | None
"""Of a value inside rolled tiles: the step that cut the tiles at whose positions it stands, or `MOVED`: it stands at
others. None: it is not inside any."""


def rolled_of(read: Iterable[tuple[Shape, Rolled]], given: Shape) -> Rolled:
    """Where that stands which was made of these maps: where those of its size stand."""
    maps = list(read)
    if any(rolled is None for _, rolled in maps):
        return None
    places = {rolled for shape, rolled in maps if shape[:2] == given[:2]}
    return places.pop() if len(places) == 1 else MOVED


def keeps_size(placed: AnyPlaced) -> bool:
    """Whether what an op gives is as large as what it reads on any map: a grid of cells is by chance."""
    op, (shape, *place) = placed.op, placed.place
    if isinstance(op, Join):
        return True
    larger = shape._replace(height=shape.height + 1, width=shape.width + 1)
    try:
        given = Placed(op, (larger, *place)).out_shape()
    except OpError:  # made for maps of one size
        return True
    return (given.height, given.width) == (larger.height, larger.width)


def mask_for(placed: AnyPlaced, shapes: Sequence[Shape], rolled: Sequence[Rolled]) -> int | None:
    """The step that cut the tiles whose mask an op takes that reads these maps; None: it takes none. Raises: OpError
    for one that would mix what the roll brought together."""
    op = placed.op
    if None in rolled or not _mixes(placed):
        return None
    hint = "tiles without shift"
    if not isinstance(op, Join):
        raise OpError(f"attention within '{op.op}' cannot keep the positions of rolled tiles apart", hint=hint)
    op.check_masked()
    if with_tokens := next((shape for shape in shapes if shape.extra), None):
        hint = f"{hint}, or drop_tokens before it"
        raise OpError(f"tokens beside {with_tokens} have no place in rolled tiles", hint=hint)
    moved = [shape for shape, place in zip(shapes, rolled, strict=True) if place == MOVED]
    if moved:
        text = f"'{op.op}' in rolled tiles reads {moved[0]}, which is not at the tile's own positions"
        raise OpError(text, hint=f"{hint}; or pool, cut other tiles and turn across outside of these")
    return rolled[0]


def _mixes(placed: AnyPlaced) -> bool:
    """Whether an op takes a mask, or has parts that would, which nobody can tell of it."""
    op, program = placed.op, placed.op.as_program(*placed.told)
    if program is not None:
        return any(_mixes(step.placed) for step in program.steps)
    return isinstance(op, Join) and op.masked

"""Extra tokens beside a map, class and register tokens say: what a block is told of a map that has some.

In memory such a map is a row of positions, x_B1(E + L)D: its E tokens, then its L = H * W positions row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from blockforge.blocks.shapes import Shape
from blockforge.errors import OpError
from blockforge.spec.slots import Kind

if TYPE_CHECKING:
    from blockforge.blocks.base import AnyOp

TokenRule = Literal["none", "each", "all", "own"]
"""What a block does with them:

none: it works on maps alone, and refuses them.
each: it treats every position alike, theirs too.
all:  they take part as further positions, in attention say.
own:  it knows of them: its place says how many there are.

A block of `each` or `all` is told of the row, as of any map of one row; what it gives has the tokens again, if it kept
the positions.
"""


def maps_at(kind: Kind, place: tuple[Any, ...]) -> tuple[Shape, ...]:
    """The maps that stand in the place of a block of a kind, but for an aggregator's sources: of a join several."""
    shapes: tuple[Shape, ...] = place[0] if kind == "join" else place[:1]
    return shapes


def told(op: AnyOp, place: tuple[Any, ...]) -> tuple[Any, ...]:
    """The place as a block's methods take it. Raises: OpError if it cannot stand beside tokens."""
    shapes = maps_at(op.kind, place)
    if not _have_tokens(shapes):
        return place
    rule = op.tokens_are()
    if rule == "own":
        return place
    if rule == "none":
        raise refusal(op.op, next(shape for shape in shapes if shape.extra))
    if rule == "each":
        _check_alike(op, shapes)
    rows = tuple(shape.row for shape in shapes)
    return (rows if op.kind == "join" else rows[0], *place[1:])


def given(op: AnyOp, place: tuple[Any, ...], out: Shape) -> Shape:
    """What a block gives at a place where it says `out` of what it was told: with the tokens of what it reads, if these
    are there still. Of several maps those of the first, or where all are treated alike those that have some."""
    shapes = maps_at(op.kind, place)
    rule = op.tokens_are() if _have_tokens(shapes) else "own"
    if rule in ("none", "own"):
        return out
    like = next(shape for shape in shapes if shape.extra) if rule == "each" else shapes[0]
    return like._replace(dim=out.dim) if out[:2] == like.row[:2] else out


def refusal(name: str, shape: Shape) -> OpError:
    """Of a block that works on maps alone."""
    text = f"'{name}' works on a map, and {shape} has {_counted(shape)} beside it"
    hint = (
        "drop_tokens or take_token before it; or both ways, {op: parallel, join: as_tokens, "
        f"of: [take_token, [drop_tokens, {name}]]}}"
    )
    return OpError(text, hint=hint, code="tokens")


def refusal_inside(name: str, shape: Shape) -> OpError:
    """Of what puts a map together from what is in it, which gives tokens."""
    text = f"'{name}' makes one map of what is in it, and that gives {shape}, with {_counted(shape)} beside it"
    return OpError(text, hint="drop_tokens or take_token at the end of what is in it", code="tokens")


def _have_tokens(shapes: tuple[Shape, ...]) -> bool:
    return max([len(shape) for shape in shapes]) > 3  # asked of every part: no generator


def _check_alike(op: AnyOp, shapes: tuple[Shape, ...]) -> None:
    """Raise `OpError` unless the maps have the same positions and tokens, but for maps of a single position."""
    sizes = {shape._replace(dim=0): shape for shape in shapes if shape.row.positions > 1}
    if len(sizes) > 1:
        first, second, *_ = sizes.values()
        text = f"'{op.op}' joins position by position, and {first} and {second} differ"
        hint = "give them the same tokens: drop_tokens leaves them out, as_tokens puts them beside a map"
        raise OpError(text, hint=hint, code="tokens")


def _counted(shape: Shape) -> str:
    return f"{shape.extra} extra token{'s' * (shape.extra > 1)}"

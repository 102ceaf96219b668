"""An op on tiles of a map."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from blockforge.blocks.base import Placed, Shape
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.program import Step
from blockforge.blocks.compose.tiling import Cut, Paste, Tiling
from blockforge.blocks.facts import facts
from blockforge.blocks.registry import part
from blockforge.blocks.tokens import refusal, refusal_inside
from blockforge.errors import OpError


def _both(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value, value) if isinstance(value, int) else value


Side = Annotated[int, Field(ge=1, le=4096)]
Sides = Annotated[tuple[Side, Side], BeforeValidator(_both)]


@part("tiles")
class Tiles(Composite):
    """The map is cut into tiles, padded with zeros right and below; the op runs on each; what it gives is put together.
    Tiles of a kept size are cropped to the map; of a smaller size they give a smaller map. A tile that is larger than
    the map along an axis shrinks to it there.

    Shape: x_BHWC -> y_BHWC.
    Cost: the op's for every tile, padding included.
    Reference: Swin Transformer, https://arxiv.org/abs/2103.14030; MaxViT (grid), https://arxiv.org/abs/2204.01697.
    """

    of: Bound = Bound("identity")
    """The op."""
    size: Sides = (7, 7)
    """Side of a tile, or [height, width]."""
    count: Sides | None = None
    """In place of `size`: how many tiles a side, whatever the image's size."""
    shift: Literal["half"] | Annotated[int, Field(ge=0, le=4096)] = 0
    """The map is rolled by so many positions up and left, `half`: by half a tile, not along an axis that one tile
    covers. `attend` inside keeps apart what the roll brings together, so its queries and keys are at the tile's own
    positions: not pooled, not in other tiles or `across`. Any other op sees the rolled map, also the mixer `attention`:
    self-attention that keeps apart is `linear`, `attend`, `linear`."""
    order: Literal["blocks", "grid"] = "blocks"
    """blocks: a tile is a block of neighbours; grid: it is spread over the map in equal steps."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        shape, outside = build.shapes[x], build.tiles[x]
        if shape.extra:
            raise refusal(self.op, shape)
        if self.count is not None and "size" in self.model_fields_set:
            raise OpError("size and count are both given", hint="keep one of them", param="count", code="both")
        tiling = Tiling(self.size if self.count is None else None, self.count, self.shift, self.order)
        grid = tiling.on(shape.height, shape.width)
        cut = build.append(_step(Cut(tiling=tiling), shape, x, outside * grid.tiles, outside, (*name, "cut")))
        build.moves(cut, x, rolls=self.shift != 0)
        y = build.inner(self.of, cut, dim, name, self.of.frame.on(build.shapes[cut], dim))
        if build.shapes[y].extra:
            raise refusal_inside(self.op, build.shapes[y]).placed_at(self.of.place)
        paste = Paste(tiling=tiling, height=shape.height, width=shape.width)
        whole = build.append(_step(paste, build.shapes[y], y, outside, outside, (*name, "paste"), cut))
        build.stands_as(whole, x)
        return whole


def _step(op: Any, shape: Shape, x: int, tiles: int, runs: int, name: tuple[str, ...], cut: int | None = None) -> Step:
    placed = Placed(op, (shape, None))
    return Step(placed, (x,), facts(placed).out_shape, tiles, runs, sized_by=cut, name=name)

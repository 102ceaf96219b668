"""Joins that take the maps one after the other: two, then their result and the third."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.joins.meeting import Meeting, MeetingJoin, listed
from blockforge.errors import OpError


class FoldedJoin(MeetingJoin):
    """Joins position by position and channel by channel. A map of one channel stands for all of them."""

    pairwise = True

    @property
    def elementwise(self) -> bool:  # type: ignore[override]
        return self.resize is None

    @property
    def commutes(self) -> bool:
        return self.resize is None

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        super().check(shapes, dim)
        if len({shape.dim for shape in shapes} - {1}) > 1:
            text = f"maps of {listed(shapes)} differ in their widths"
            hint = "ask each for one width, as in {op: ..., dim: $out}, or join them by concat"
            raise OpError(text, hint=hint, code="widths")

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return Shape(*self.size(shapes), max(shape.dim for shape in shapes))

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        made = most = self.begun(shapes[0])
        resized, partial = self.resized(shapes), shapes[0]
        for shape, is_resized in zip(shapes[1:], resized[1:], strict=True):
            beside = shapes[0].positions * shape.dim if is_resized else 0
            size = shapes[0] if self.resize is not None else shape
            partial = Shape(*map(max, partial, size._replace(dim=shape.dim)))
            most = max(most, made + beside + partial.elements)
            made = partial.elements
        return most

    def begun(self, first: Shape) -> int:
        """Elements that are made of the first map alone."""
        return 0


class FoldedModule(nn.Module):
    """Joins any number of maps. A single one is given back as it is."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__()
        self.meeting = meeting

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        y = maps_BHWC[0]
        for i in range(1, len(maps_BHWC)):
            y = self.pair(y, self.meeting.sized(maps_BHWC, i))
        return y

    @abstractmethod
    def pair(self, y: Tensor, x: Tensor) -> Tensor:
        """Two maps joined."""

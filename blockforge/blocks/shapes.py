"""The shape of a map, and of the tokens beside it."""

from __future__ import annotations

from operator import itemgetter


class Shape(tuple[int, int, int]):
    """A feature map without its batch: height and width in positions, `dim` channels. Where `extra` tokens stand beside
    the map, it is a tuple of four."""

    __slots__ = ()

    def __new__(cls, height: int, width: int, dim: int, extra: int = 0) -> Shape:
        return tuple.__new__(cls, (height, width, dim, extra) if extra else (height, width, dim))

    height: int = property(itemgetter(0))  # type: ignore[assignment]
    width: int = property(itemgetter(1))  # type: ignore[assignment]
    dim: int = property(itemgetter(2))  # type: ignore[assignment]

    @property
    def extra(self) -> int:
        """Tokens beside the map."""
        return sum(self[3:]) if len(self) > 3 else 0

    @property
    def positions(self) -> int:
        """Of the map and of the tokens."""
        return self[0] * self[1] + self.extra

    @property
    def elements(self) -> int:
        return self.positions * self[2]

    @property
    def row(self) -> Shape:
        """The map as it lies in memory: with extra tokens a row, these first."""
        return Shape(1, self.positions, self.dim) if self.extra else self

    @property
    def sides(self) -> str:
        """`14x14`, and with extra tokens `14x14+1`."""
        return str(self).partition("x")[2]

    def _replace(self, **changed: int) -> Shape:
        return Shape(**{"height": self[0], "width": self[1], "dim": self[2], "extra": self.extra, **changed})

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"Shape({', '.join(map(repr, self))})"

    def __str__(self) -> str:
        beside = f"+{self.extra}" if self.extra else ""
        return f"{self.dim}x{self.height}x{self.width}{beside}"

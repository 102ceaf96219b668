"""An op several times in a row."""

from __future__ import annotations

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.fields import Count
from blockforge.blocks.registry import part


@part("repeat")
class Repeat(Composite):
    """An op so many times in a row, each with weights of its own unless they share them.

    Shape: x_BHWC -> y_BHWC.
    """

    of: Bound = Bound("identity")
    """The op."""
    times: Count = 2
    """How often."""
    share: bool = False
    """Whether all have one set of weights."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        for i in range(self.times):
            with build.sharing(self.share and i > 0):
                x = build.inner(self.of, x, dim, (*name, "0" if self.share else str(i)), self.of.frame)
        return x

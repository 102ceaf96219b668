"""An op several times in a row."""

from __future__ import annotations

from contextlib import nullcontext

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.fields import Count
from blockforge.blocks.registry import part
from blockforge.errors import OpError


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
    """Whether all have one set of weights; then each must read what the first one reads, but for parts that are the
    same on maps of any size."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        names = dict(build.names) if self.share else {}
        for i in range(self.times):
            try:
                with build.sharing(names) if self.share and i > 0 else nullcontext():
                    x = build.inner(self.of, x, dim, (*name, "0" if self.share else str(i)), self.of.frame)
            except OpError as e:
                if e.code == "share":
                    e.placed_at((*self.of.at[:-1], "share"))
                raise
        return x

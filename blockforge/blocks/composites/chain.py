"""Ops in a row."""

from __future__ import annotations

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.written import Seq
from blockforge.blocks.registry import part


@part("chain")
class Chain(Composite):
    """Ops in a row, each reading what the one before it gave; a list says the same: `[linear, gelu, linear]`.

    Shape: x_BHWC -> y_BHWC, what the last op gives.
    """

    of: Bound = Bound(Seq(("identity",)))
    """The ops: a list, or a mapping that names them."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        return build.chain(self.of, x, dim, name)

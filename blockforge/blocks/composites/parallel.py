"""Ops that read the same map."""

from __future__ import annotations

from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.joined import Joiner
from blockforge.blocks.compose.written import Seq
from blockforge.blocks.registry import part


@part("parallel")
class Parallel(Composite):
    """Every op reads the same map; the results are joined.

    Shape: x_BHWC -> y_BHWC, what the join gives.
    """

    of: Bound = Bound(Seq(("identity", "identity")))
    """The ops: a list, or a mapping that names them."""
    join: Bound = Bound("sum")
    """What makes one map of the results: `sum`, `mul`, `mean`, `max`, `concat`, `attend`, or an aggregator."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        joiner = Joiner(build, Bound(self.join.value, self.join.frame.asked(dim), self.join.at), name)
        for member_name, member in build.members(self.of):
            if not build.is_absent(member):
                joiner.take(build.add(member, x, None, (*name, member_name)), member_name, member.place)
        return joiner.result(x)

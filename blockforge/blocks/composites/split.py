"""Ops that share the channels of a map."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated

from pydantic import BeforeValidator

from blockforge.blocks.base import divisible
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.joined import Joiner
from blockforge.blocks.compose.written import Seq
from blockforge.blocks.fields import Width
from blockforge.blocks.parts.slice import Slice
from blockforge.blocks.registry import part
from blockforge.errors import OpError


@part("split")
class Split(Composite):
    """Each op reads its share of the channels; the results are joined, side by side unless `join` says otherwise.

    Shape: x_BHWC -> y_BHWC, what the join gives.
    """

    of: Bound = Bound(Seq(("identity", "identity")))
    """The ops: a list, or a mapping that names them."""
    join: Bound = Bound("concat")
    """What makes one map of the results."""
    sizes: Annotated[tuple[Width, ...] | None, BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = None
    """Channels for each op; absent: equal shares."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        members = build.members(self.of)
        joiner = Joiner(build, Bound(self.join.value, self.join.frame.asked(dim), self.join.at), name)
        sizes = self.shares(build.shapes[x].dim, len(members))
        for (member_name, member), size, end in zip(members, sizes, accumulate(sizes), strict=True):
            share = build.step(Slice(start=end - size, size=size), (x,), None, (*name, f"{member_name}_slice"))
            y = share if build.is_absent(member) else build.add(member, share, None, (*name, member_name))
            joiner.take(y, member_name, member.place)
        return joiner.result(x)

    def shares(self, dim: int, count: int) -> tuple[int, ...]:
        """Channels for each op. Raises: OpError."""
        if not count:
            raise OpError("it has no op that takes the channels", hint="as in {op: split, of: [dwconv, identity]}")
        if self.sizes is None:
            divisible(dim, count, "dim", "the number of ops")
            return (dim // count,) * count
        if len(self.sizes) != count or sum(self.sizes) != dim:
            text = f"sizes {list(self.sizes)} are for {len(self.sizes)} ops and {sum(self.sizes)} channels"
            raise OpError(text, hint=f"there are {count} ops, and the map has {dim} channels", param="sizes")
        return self.sizes

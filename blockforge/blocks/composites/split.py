"""Ops that share the channels of a map."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated

from pydantic import BeforeValidator

from blockforge.blocks.base import divisible
from blockforge.blocks.compose.expand import Builder, Composite
from blockforge.blocks.compose.folding import Fold, Unfold
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.joined import Joiner
from blockforge.blocks.compose.written import Seq
from blockforge.blocks.fields import Count, Width
from blockforge.blocks.parts.slice import Slice
from blockforge.blocks.registry import part
from blockforge.errors import OpError

_BESIDE = "concat"


@part("split")
class Split(Composite):
    """Each op reads its share of the channels; the results are joined, side by side unless `join` says otherwise.

    Shape: x_BHWC -> y_BHWC, what the join gives.
    """

    of: Bound = Bound(Seq(("identity", "identity")))
    """The ops: a list, or a mapping that names them; with `count` one op."""
    join: Bound = Bound(_BESIDE)
    """What makes one map of the results."""
    sizes: Annotated[tuple[Width, ...] | None, BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)] = None
    """Channels for each op; absent: equal shares."""
    count: Count | None = None
    """So many equal shares for `of`, which then is one op, or a chain."""
    share: bool = False
    """With `count`: whether the op has one set of weights for all shares, as for the heads of attention. They are
    images of one batch to it: a `batch_norm` has statistics of all of them, `drop_path` drops each by itself."""

    def expand(self, build: Builder, x: int, dim: int | None, name: tuple[str, ...]) -> int:
        self.check_keys()
        joiner = Joiner(build, Bound(self.join.value, self.join.frame.asked(dim), self.join.at), name)
        if self.share:
            x = self.of_one_batch(build, x, name)
            if self.join.value == _BESIDE:  # as they lie
                return x
        members = build.members(self.of) if self.count is None else [(str(i), self.of) for i in range(self.count)]
        sizes = self.shares(build.shapes[x].dim, len(members))
        for (member_name, member), size, end in zip(members, sizes, accumulate(sizes), strict=True):
            share = build.step(Slice(start=end - size, size=size), (x,), None, (*name, f"{member_name}_slice"))
            is_done = self.share or build.is_absent(member)
            y = share if is_done else build.add(member, share, None, (*name, member_name))
            joiner.take(y, member_name, member.place)
        return joiner.result(x)

    def check_keys(self) -> None:
        """Raise `OpError` for keys that do not go together."""
        if self.count is not None and self.sizes is not None:
            raise OpError("sizes and count are both given", hint="keep one of them", param="count", code="both")
        if self.share and self.count is None:
            hint = "count says how many, as in {op: split, count: 4, share: true, of: dwconv}"
            raise OpError("share is for equal shares of one op", hint=hint, param="share", code="value")

    def of_one_batch(self, build: Builder, x: int, name: tuple[str, ...]) -> int:
        """What the op makes of all shares, side by side."""
        assert self.count is not None
        if self.count == 1:
            return build.inner(self.of, x, None, name, self.of.frame)
        self.shares(build.shapes[x].dim, self.count)
        outside = build.tiles[x]
        folded = build.step(Fold(count=self.count), (x,), None, (*name, "fold"), tiles=outside * self.count)
        y = build.inner(self.of, folded, None, name, self.of.frame)
        return build.step(Unfold(count=self.count), (y,), None, (*name, "unfold"), tiles=outside)

    def shares(self, dim: int, count: int) -> tuple[int, ...]:
        """Channels for each op. Raises: OpError."""
        if not count:
            raise OpError("it has no op that takes the channels", hint="as in {op: split, of: [dwconv, identity]}")
        if self.sizes is None:
            by, param = ("the number of ops", None) if self.count is None else ("count", "count")
            divisible(dim, count, "dim", by, param)
            return (dim // count,) * count
        if len(self.sizes) != count or sum(self.sizes) != dim:
            text = f"sizes {list(self.sizes)} are for {len(self.sizes)} ops and {sum(self.sizes)} channels"
            raise OpError(text, hint=f"there are {count} ops, and the map has {dim} channels", param="sizes")
        return self.sizes

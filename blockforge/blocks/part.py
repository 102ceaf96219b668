"""The pieces that blocks are made of in YAML: parts, which read one map, and joins, which read several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from blockforge.blocks.base import Cost, Op, Shape


class Part(Op[Shape, int | None]):
    """A piece of a block. Module: `forward(x_BHWC) -> y_BHWC`.

    Its place is `shape, dim`: the map it reads and the width that it is asked for, None where nobody asks. A part that
    can choose its width gives what it is asked for; what others give does not depend on it.
    """

    kind = "part"
    of_place: ClassVar[Mapping[str, str]] = {}
    """Parameters that, left out, take what a name of the place stands for: `{"rate": "drop_path"}`."""
    classifies: ClassVar[bool] = False
    """Whether it gives the classes of a head: its module has `reset(num_classes)`, and what it reads are the features
    that `pre_logits` asks for."""

    def before_norm(self) -> Part:
        """What stands in its place right before a norm that needs no bias there. The default: itself."""
        return self

    @property
    def mixes(self) -> bool:
        """Whether what it gives at one position depends on others."""
        return False

    def as_view(self, shape: Shape, dim: int | None) -> tuple[int, int] | None:
        """From which channel to which it gives what it reads, if that is all it does. The default: it does more."""
        return None

    def adds_input(self, shape: Shape, dim: int | None) -> bool:
        """Whether `layers.residual_dwconv` adds what its module reads to what that gives, in one pass."""
        return False


class TrainingPart(Part):
    """A part that changes the map in training alone; in inference it gives the map itself."""

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return 0


class Join(Op[tuple[Shape, ...], int | None]):
    """Makes one map of several. Module: `forward(*maps_BHWC) -> y_BHWC`.

    Its place is `shapes, dim`: the maps in their order, and the width that it is asked for, None where nobody asks.
    """

    kind = "join"
    inline: ClassVar[str | None] = None
    """Python for what its module would do, `"added({}, {})"`, of a join without parameters: inside a block it then has
    no module."""
    masked: ClassVar[bool] = False
    """Whether its module takes a keyword `mask`, which says what positions of a shifted tile belong together."""
    alone: ClassVar[bool] = False
    """Whether it makes something else of a single map."""
    pairwise: ClassVar[bool] = False
    """Whether more than two maps may be joined one after the other: the result of two, then the third."""

    def factors(self, shapes: tuple[Shape, ...]) -> tuple[float, ...] | None:
        """What each map is multiplied by, if the result is their sum then and all are of one shape. The default, None:
        it is something else."""
        return None

    @property
    def commutes(self) -> bool:
        """Whether the order of the maps does not matter."""
        return False

    def check_masked(self) -> None:
        """Raise `OpError` if it cannot keep the positions of a rolled tile apart; those that are `masked` are asked."""

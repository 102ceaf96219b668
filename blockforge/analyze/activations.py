"""Statistics of every node's values: their scale, what is zero, which channels are dead.

Maps are channels-last, (..., C); the value of a branch includes its residual sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from blockforge.analyze.record import run
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.lowering.backbone import Backbone

HALF_MAX = 65504.0
"""The largest number of float16."""
GROWTH = 10.0
"""A node whose values spread this many times as far as those it reads is flagged."""


@dataclass(frozen=True)
class NodeStatistics:
    """The values of a node over all images, positions and channels.

    Attributes:
        node, op: which one.
        mean, std, max_abs: of the finite values.
        zeros: share of values that are exactly zero.
        channels, dead: how many, and how many of them have one value at every position of every image.
        growth: `std` over that of the node it reads first.
        flags: what is wrong: `not finite`, `above float16`, `grows xN`, `dead channels`, `all equal`.
    """

    node: str
    op: str
    mean: float
    std: float
    max_abs: float
    zeros: float
    channels: int
    dead: int
    growth: float
    flags: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "flags": ", ".join(self.flags)}


class _Sums:
    """Running sums of a node's values, and each channel's range."""

    def __init__(self) -> None:
        self.count = self.finite = self.zeros = 0
        self.total = self.squares = self.max_abs = 0.0
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def add(self, value: Tensor) -> None:
        flat = value.reshape(-1, value.shape[-1])
        low, high = flat.amin(0), flat.amax(0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)
        self.count += flat.numel()
        self.zeros += int((flat == 0).sum())
        kept = flat if bool(torch.isfinite(low.sum() + high.sum())) else flat[torch.isfinite(flat)]
        self.finite += kept.numel()
        if kept.numel():
            self.total += float(kept.sum(dtype=torch.float64))
            self.squares += float(kept.double().square().sum())
            self.max_abs = max(self.max_abs, float(kept.abs().max()))

    @property
    def mean(self) -> float:
        return self.total / max(self.finite, 1)

    @property
    def std(self) -> float:
        return max(self.squares / max(self.finite, 1) - self.mean**2, 0.0) ** 0.5

    @property
    def dead(self) -> int:
        return int(torch.eq(self.low, self.high).sum()) if self.low is not None and self.high is not None else 0

    @property
    def channels(self) -> int:
        return len(self.low) if self.low is not None else 0


def activation_statistics(
    model: Backbone, batches: Sequence[Tensor], *, advance: Callable[[], None] = lambda: None
) -> list[NodeStatistics]:
    """Statistics of every node of the graph, in execution order.

    Args:
        batches: images_BCHW as the network sees them.
        advance: called after each batch.
    """
    sums: dict[str, _Sums] = {}
    image = _Sums()
    with torch.no_grad():
        for batch in batches:
            image.add(batch.permute(0, 2, 3, 1))
            run(model, batch, lambda node, value: sums.setdefault(node, _Sums()).add(value))
            advance()
    nodes = model.arch.nodes
    read = {"input": image, **sums}
    return [_statistics(nodes[name], node_sums, read) for name, node_sums in sums.items()]


def _statistics(node: Node, sums: _Sums, read: dict[str, _Sums]) -> NodeStatistics:
    before = read[node.inputs[0]].std
    growth = sums.std / before if before > 0 else 0.0
    flags = []
    if sums.finite < sums.count:
        flags.append("not finite")
    if sums.max_abs > HALF_MAX:
        flags.append("above float16")
    if growth > GROWTH:
        flags.append(f"grows x{growth:.0f}")
    if sums.dead == sums.channels:
        flags.append("all equal")
    elif sums.dead:
        flags.append("dead channels")
    share = sums.zeros / sums.count
    return NodeStatistics(
        node.name, node.op, sums.mean, sums.std, sums.max_abs, share, sums.channels, sums.dead, growth,
        tuple(flags),
    )  # fmt: skip

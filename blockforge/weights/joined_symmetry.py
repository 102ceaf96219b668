"""What an aggregator's tensors have of each of its sources, found by trying: sources and entries change places together
without a change of the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from blockforge.blocks.base import AnyPlaced, Placed
from blockforge.weights.symmetry import Trial, Units, axis_of, shrinking, sizes_of, small_place


@dataclass(frozen=True)
class _Joining:
    """An aggregator at a place: it reads a map and its sources, here side by side."""

    placed: AnyPlaced

    @property
    def widths(self) -> list[int]:
        shape, sources, _ = self.placed.place
        return [shape.dim, *sources]

    def build(self) -> nn.Module:
        return self.placed.build()

    def drawn(self, draw: torch.Generator) -> Tensor:
        shape = self.placed.place[0]
        return torch.randn(1, shape.height, shape.width, sum(self.widths), generator=draw, dtype=torch.float64)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        own, *sources = x.split(self.widths, -1)
        y: Tensor = module(own, sources)
        return y

    def along(self, x: Tensor, units: Sequence[int]) -> Tensor:
        own, *sources = x.split(self.widths, -1)
        return torch.cat([own, *(sources[i] for i in units)], -1)


def sources_between(wide: AnyPlaced, narrow: AnyPlaced) -> Units | None:
    """How an aggregator becomes the same with fewer sources: the units are what its tensors have of each source, which
    may change places with the sources. None: nobody can say which entries those are."""
    number, kept = len(wide.place[1]), len(narrow.place[1])
    with torch.device("meta"):
        before, after = sizes_of(wide.build()), sizes_of(narrow.build())
    if before.keys() != after.keys() or kept >= number:
        return None
    shrinks = shrinking(before, after)
    each = [(before[n][i] - after[n][i]) // (number - kept) for n, i in shrinks]
    trial = Trial(_Joining(Placed(wide.op, small_place(wide))))
    for is_last in (False, True):
        axes = [
            axis_of(name, i, before[name][i], size, size, number, is_last)
            for (name, i), size in zip(shrinks, each, strict=True)
        ]
        units = Units(number, kept, tuple(axes))
        if all(a.before >= 0 and a.after >= 0 for a in axes) and trial.is_symmetric(units):
            return units
    return None

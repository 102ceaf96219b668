"""What a network could hold, from its widths alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from blockforge.compiler import Architecture


@dataclass(frozen=True)
class Capacity:
    """The sum of log(dim) over the layers, `dim` the width of what a layer gives.

    It is what `expressivity` approaches where the features of every layer are as varied as its width allows. It is a
    size, as depth and parameters are, and says nothing of accuracy by itself: compare networks of equal cost by it. No
    score without training that was measured here says more (docs/proxies.md), and this one makes no tensor.
    """

    name: ClassVar[str] = "capacity"
    cost: ClassVar[float] = 0.0

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return "capacity (the sum of log(dim) over layers, a size and no accuracy)"

    def __call__(self, arch: Architecture) -> float:
        layers = (layer for stage in arch.stages for layer in stage.layers)
        return math.fsum(math.log(layer.last.out_shape.dim) for layer in layers)


capacity = Capacity

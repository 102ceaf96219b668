"""What a third party may add besides blocks: a rule of `connect`, a weight layout, a data source, an objective and a
sampler."""

from __future__ import annotations

import torch

from blockforge.compiler import Architecture
from blockforge.compiler.graph.connect import Feeds, Rule, rule
from blockforge.search.objectives.registry import objective
from blockforge.search.samplers.algorithms.random import Uniform
from blockforge.search.samplers.registry import sampler
from blockforge.train.data import Opened
from blockforge.train.opening import Options, source
from blockforge.train.tensor_split import TensorSplit
from blockforge.weights.family import Family, register


@rule("first")
class First(Rule):
    """Every layer but the first receives the first one."""

    def sources(self, depth: int, first_stage: bool) -> Feeds:
        return dict.fromkeys(range(1, depth), (0,))


register(
    Family(
        "extra",
        lambda keys: all(key.endswith("_extra") for key in keys),
        lambda key: (f"{key}_extra",),
    )
)


@source("halves", "halves")
def halves(rest: str, options: Options) -> Opened:
    """Dark and bright images."""
    labels_B = torch.arange(16) % 2
    images_BCHW = (labels_B * 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    split = TensorSplit(images_BCHW, labels_B)
    return Opened(["dark", "bright"], split, split)


@objective("layers")
class Layers:
    """How many layers there are, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, arch: Architecture) -> float:
        return self.factor * arch.depth


sampler("dice")(Uniform)

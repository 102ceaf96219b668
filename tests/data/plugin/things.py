"""What a third party may add besides blocks: a rule of `connect`, a weight layout and a data source."""

from __future__ import annotations

import torch

from blockforge.compiler.graph.connect import Feeds, Rule, rule
from blockforge.train.data import Opened, TensorSplit
from blockforge.train.opening import Options, source
from blockforge.weights.official import Family, register


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

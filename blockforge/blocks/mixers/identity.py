"""Nothing: what a mixer is measured against."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.registry import mixer


@mixer("identity")
class Identity(Mixer):
    """Gives its input, so that a layer mixes no positions: the baseline of MetaFormer's ablation.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: none.
    Reference: MetaFormer Is Actually What You Need for Vision, CVPR 2022, https://arxiv.org/abs/2111.11418.
    """

    token_rule = "each"

    passes = True

    def cost(self, shape: Shape) -> Cost:
        return Cost()

    def workspace(self, shape: Shape) -> int:
        return 0

    def build(self, shape: Shape) -> nn.Module:
        return nn.Identity()

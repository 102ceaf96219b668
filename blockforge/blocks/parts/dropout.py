"""Dropout of single values."""

from __future__ import annotations

from torch import nn

from blockforge.blocks.base import Shape
from blockforge.blocks.part import TrainingPart
from blockforge.blocks.registry import part
from blockforge.spec.fields import Rate


@part("dropout")
class Dropout(TrainingPart):
    """In training every value is zero with a probability, and the others grow so that the mean stays.

    Shape: x_BHWC -> y_BHWC; in inference the map itself.
    Cost: no parameters and no multiply-adds.
    Reference: Dropout, JMLR 2014, https://jmlr.org/papers/v15/srivastava14a.html.
    """

    token_rule = "each"

    rate: Rate = 0.5
    """Probability of a zero."""

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return nn.Dropout(self.rate) if self.rate else nn.Identity()

"""Mish."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from blockforge.blocks.base import Act, Shape
from blockforge.blocks.registry import act


@act("mish")
class Mish(Act):
    """`x * tanh(log(1 + exp(x)))`.

    Shape: keeps it.
    Cost: none.
    Reference: Mish: A Self Regularized Non-Monotonic Activation Function, https://arxiv.org/abs/1908.08681.
    """

    overwrites: ClassVar[bool] = True

    def build(self, shape: Shape) -> nn.Module:
        return nn.Mish()

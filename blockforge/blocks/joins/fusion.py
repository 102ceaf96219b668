"""A sum of maps whose weights are learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.joins.folded import FoldedJoin
from blockforge.blocks.joins.meeting import Meeting
from blockforge.blocks.registry import join


@join("fusion")
class Fusion(FoldedJoin):
    """The mean of the maps by learnt weights, one a map: what relu leaves of them, divided by their sum. Sides and
    widths of 1 are broadcast.

    Shape: maps_BHWC -> y_BHWC.
    Cost: a parameter a map; no multiply-adds.
    Raises: OpError if the maps differ in size or width.
    Reference: EfficientDet, CVPR 2020, https://arxiv.org/abs/1911.09070, section 3.3, fast normalized fusion.
    """

    token_rule = "each"
    pairwise = False
    alone = True

    eps: Eps = 1e-4
    """Added to the sum of the weights."""

    @property
    def commutes(self) -> bool:
        return False

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        return Cost(params=len(shapes))

    def begun(self, first: Shape) -> int:
        return first.elements

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return FusionModule(self.meeting(shapes), len(shapes), self.eps)


class FusionModule(nn.Module):
    """See `Fusion`."""

    def __init__(self, meeting: Meeting, maps: int, eps: float) -> None:
        super().__init__()
        self.meeting, self.eps = meeting, eps
        self.weight = nn.Parameter(torch.empty(maps))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def no_weight_decay(self) -> set[str]:
        return {"weight"}

    def forward(self, *maps_BHWC: Tensor) -> Tensor:
        positive = self.weight.relu()
        shares = positive / (positive.sum() + self.eps)
        y = maps_BHWC[0] * shares[0]
        for i in range(1, len(maps_BHWC)):
            y = torch.addcmul(y, self.meeting.sized(maps_BHWC, i), shares[i])
        return y

    def extra_repr(self) -> str:
        return f"eps={self.eps}"

"""The usual classifier: norms, pooling, linear layer."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Head, Shape
from blockforge.blocks.fields import NormParam
from blockforge.blocks.layers import Linear
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.blocks.registry import head


@head("classifier")
class Classifier(Head):
    """Norm over the last map, pooling over positions, norm of what was pooled, linear layer.

    Shape: x_BHWC -> y_BK, K classes; with 0 classes the pooled features, y_BC.
    Cost: C * K multiply-adds.
    """

    token_rule = "all"

    pool: Literal["avg", "max", "token"] = "avg"
    """Pooling over positions; token: the first position alone, where `vit_stem` puts the class token."""
    norm: NormParam = None
    """Norm before pooling, or none."""
    pooled_norm: NormParam = None
    """Norm after pooling, or none."""

    def check(self, shape: Shape, num_classes: int) -> None:
        if self.norm is not None:
            self.norm.check(shape)
        if self.pooled_norm is not None:
            self.pooled_norm.check(_pooled(shape))

    def cost(self, shape: Shape, num_classes: int) -> Cost:
        cost = self.norm.cost(shape) if self.norm is not None else Cost()
        if self.pooled_norm is not None:
            cost += self.pooled_norm.cost(_pooled(shape))
        return cost + (primitives.linear(shape.dim, num_classes, 1) if num_classes else Cost())

    def workspace(self, shape: Shape, num_classes: int) -> int:
        peak = self.norm.workspace(shape) if self.norm is not None else 0
        alive = shape.elements if self.norm is not None else 0
        peak, alive = max(peak, alive + shape.dim), shape.dim
        if self.pooled_norm is not None:
            peak, alive = max(peak, alive + self.pooled_norm.workspace(_pooled(shape))), shape.dim
        return max(peak, alive + num_classes)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        norm = self.norm.build(shape) if self.norm is not None else nn.Identity()
        last = self.pooled_norm.build(_pooled(shape)) if self.pooled_norm is not None else nn.Identity()
        return ClassifierModule(shape.dim, num_classes, self.pool, norm, last)


def _pooled(shape: Shape) -> Shape:
    """What pooling leaves, as a map."""
    return Shape(1, 1, shape.dim)


class ClassifierModule(nn.Module):
    """See `Classifier`. `drop_rate`: share of the features that training drops before the classifier."""

    def __init__(self, dim: int, num_classes: int, pool: str, norm: nn.Module, pooled_norm: nn.Module) -> None:
        super().__init__()
        self.dim, self.pool, self.drop_rate = dim, pool, 0.0
        self.norm, self.norm_layout = norm, layout_of(norm)
        self.pooled_norm, self.pooled_layout = pooled_norm, layout_of(pooled_norm)
        self.fc: nn.Module = nn.Identity()
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0: by nothing."""
        old = next(self.fc.parameters(), None)
        self.fc = Linear(self.dim, num_classes) if num_classes else nn.Identity()
        if old is not None:
            self.fc.to(old.device, old.dtype)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = on_map(self.pooled_norm, self.pooled(x), self.pooled_layout).flatten(1)
        if pre_logits:
            return x
        return self.fc(F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x)

    def pooled(self, x: Tensor) -> Tensor:
        """The normalised map, pooled to one position."""
        x = on_map(self.norm, x, self.norm_layout)
        if self.pool == "token":
            return x[:, :1, :1].contiguous()  # else it keeps the whole map alive
        return x.mean((1, 2), keepdim=True) if self.pool == "avg" else x.amax((1, 2), keepdim=True)

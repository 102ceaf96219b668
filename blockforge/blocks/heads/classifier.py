"""The usual classifier: norm, pooling, linear layer."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Head, Shape
from blockforge.blocks.fields import NormParam
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import head


@head("classifier")
class Classifier(Head):
    """Norm over the last map, pooling over positions, linear layer.

    Shape: x_BHWC -> y_BK, K classes; with 0 classes the pooled features, y_BC.
    Cost: C * K multiply-adds.
    """

    pool: Literal["avg", "max"] = "avg"
    """Pooling over positions."""
    norm: NormParam = None
    """Norm before pooling, or none."""

    def check(self, shape: Shape, num_classes: int) -> None:
        if self.norm is not None:
            self.norm.check(shape)

    def cost(self, shape: Shape, num_classes: int) -> Cost:
        norm = self.norm.cost(shape) if self.norm is not None else Cost()
        return norm + (primitives.linear(shape.dim, num_classes, 1) if num_classes else Cost())

    def workspace(self, shape: Shape, num_classes: int) -> int:
        norm = self.norm.workspace(shape) if self.norm is not None else 0
        return max(norm, (shape.elements if norm else 0) + shape.dim, shape.dim + num_classes)

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        norm = self.norm.build(shape) if self.norm is not None else nn.Identity()
        return ClassifierModule(shape.dim, num_classes, self.pool, norm)


class ClassifierModule(nn.Module):
    """See `Classifier`."""

    def __init__(self, dim: int, num_classes: int, pool: str, norm: nn.Module) -> None:
        super().__init__()
        self.dim, self.pool = dim, pool
        self.norm = norm
        self.fc: nn.Module = nn.Identity()
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """Replace the classifier by a new one; 0: by nothing."""
        old = next(self.fc.parameters(), None)
        self.fc = Linear(self.dim, num_classes) if num_classes else nn.Identity()
        if old is not None:
            self.fc.to(old.device, old.dtype)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.norm(x).flatten(1, 2)
        x = x.mean(1) if self.pool == "avg" else x.amax(1)
        return x if pre_logits else self.fc(x)

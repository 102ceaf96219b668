"""The plain two-layer feed-forward network."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import FFN, Cost, Shape, hidden_width
from blockforge.blocks.fields import Act, Ratio
from blockforge.blocks.layers import Linear, activation
from blockforge.blocks.registry import ffn
from blockforge.kernels.cpu import activate, untouched


@ffn("mlp")
class MLP(FFN):
    """Two linear layers with an activation between them, at each position.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 * mlp_ratio * dim^2 multiply-adds a position.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3.3.
    """

    mlp_ratio: Ratio = 4.0
    """Hidden width, times dim."""
    act: Act = "gelu"
    """Activation."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def cost(self, shape: Shape) -> Cost:
        hidden = self.hidden(shape.dim)
        return primitives.linear(shape.dim, hidden, shape.positions) + primitives.linear(
            hidden, shape.dim, shape.positions
        )

    def workspace(self, shape: Shape) -> int:
        hidden = self.hidden(shape.dim)
        return shape.positions * (hidden + shape.dim)

    def build(self, shape: Shape) -> nn.Module:
        return MLPModule(shape.dim, self.hidden(shape.dim), self.act)


class MLPModule(nn.Module):
    """See `MLP`."""

    def __init__(self, dim: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = activation(act)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(activate(self.act, x, untouched(self.fc1, Linear)))

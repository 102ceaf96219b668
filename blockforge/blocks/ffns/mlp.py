"""The plain two-layer feed-forward network."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import FFN, Cost, Shape, hidden_width
from blockforge.blocks.fields import ActParam, Ratio
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import ffn
from blockforge.kernels.cpu import activate, untouched


@ffn("mlp")
class MLP(FFN):
    """Two linear layers with an activation between them, at each position.

    Shape: x_BHWC -> y_BHWC.
    Cost: 2 * mlp_ratio * dim^2 multiply-adds a position.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3.3.
    """

    token_rule = "each"

    mlp_ratio: Ratio = 4.0
    """Hidden width, times dim."""
    act: ActParam = GELU()
    """Activation."""
    bias: bool | None = None
    """false: linear layers without biases; absent: with."""

    def parameters_dict(self) -> dict[str, Any]:
        """What came later leaves no trace where it says nothing: hashes stay."""
        return {name: value for name, value in super().parameters_dict().items() if (name, value) != ("bias", None)}

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def inside(self, shape: Shape) -> Shape:
        """The hidden map."""
        return shape._replace(dim=self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        dim, hidden, positions = shape.dim, self.hidden(shape.dim), shape.positions
        bias = self.bias is not False
        cost = primitives.linear(dim, hidden, positions, bias=bias) + self.act.cost(self.inside(shape))
        return cost + primitives.linear(hidden, dim, positions, bias=bias)

    def workspace(self, shape: Shape) -> int:
        hidden = self.inside(shape)
        return hidden.elements + max(shape.elements, self.act.beside(hidden))

    def build(self, shape: Shape) -> nn.Module:
        return MLPModule(shape.dim, self.hidden(shape.dim), self.act.build(self.inside(shape)), self.bias is not False)


class MLPModule(nn.Module):
    """See `MLP`."""

    def __init__(self, dim: int, hidden: int, act: nn.Module, bias: bool = True) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden, bias=bias)
        self.act = act
        self.fc2 = Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(activate(self.act, self.fc1(x), untouched(self.fc1, Linear)))

"""A feed-forward network with a gate: SwiGLU and its kin."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.silu import SiLU
from blockforge.blocks.base import FFN, Cost, Shape, hidden_width
from blockforge.blocks.fields import ActParam, Ratio
from blockforge.blocks.layers import Linear
from blockforge.blocks.registry import ffn
from blockforge.kernels.cpu import activate, untouched


@ffn("gated_mlp")
class GatedMLP(FFN):
    """`proj(act(gate(x)) * value(x))`, all three linear layers. With silu it is SwiGLU, with gelu GEGLU.

    Shape: x_BHWC -> y_BHWC.
    Cost: 3 * mlp_ratio * dim^2 multiply-adds a position: with two thirds of its ratio as much as an mlp.
    Reference: GLU Variants Improve Transformer, https://arxiv.org/abs/2002.05202.
    """

    token_rule = "each"

    mlp_ratio: Ratio = 8 / 3
    """Hidden width, times dim."""
    act: ActParam = SiLU()
    """Activation of the gate."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def gates(self, shape: Shape) -> Shape:
        """The map of the gates, as large as that of the values."""
        return shape._replace(dim=self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        hidden, positions = self.hidden(shape.dim), shape.positions
        cost = primitives.linear(shape.dim, 2 * hidden, positions) + self.act.cost(self.gates(shape))
        return cost + primitives.linear(hidden, shape.dim, positions)

    def workspace(self, shape: Shape) -> int:
        gates = self.gates(shape)
        beside = self.act.beside(gates)
        product = gates.elements * (2 if beside else 1)  # an activation of its own memory lives until it is made
        return 2 * gates.elements + max(product, beside)

    def build(self, shape: Shape) -> nn.Module:
        return GatedMLPModule(shape.dim, self.hidden(shape.dim), self.act.build(self.gates(shape)))


class GatedMLPModule(nn.Module):
    """See `GatedMLP`. The rows of `fc` are gates, values."""

    def __init__(self, dim: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc = Linear(dim, 2 * hidden)
        self.act = act
        self.proj = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.gated(x))

    def gated(self, x: Tensor) -> Tensor:
        gate, value = self.fc(x).chunk(2, dim=-1)
        return activate(self.act, gate, untouched(self.fc, Linear)) * value

"""A feed-forward network with a depth-wise convolution between its linear layers."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import FFN, Cost, Shape, hidden_width
from blockforge.blocks.fields import ActParam, OddKernel, Ratio
from blockforge.blocks.layers import ConvInit, DWConv, Linear, residual_dwconv
from blockforge.blocks.registry import ffn
from blockforge.kernels.cpu import activate


@ffn("conv_mlp")
class ConvMLP(FFN):
    """Linear layer, `act(x + dwconv(x))`, linear layer: the FFN of SMT and SparX.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: (2 * dim + kernel_size^2) * mlp_ratio * dim multiply-adds a position.
    Reference: Scale-Aware Modulation Meet Transformer, ICCV 2023, https://arxiv.org/abs/2307.08579.
    """

    mlp_ratio: Ratio = 4.0
    """Hidden width, times dim."""
    kernel_size: OddKernel = 3
    """Side of the depth-wise kernel."""
    act: ActParam = GELU()
    """Activation."""
    init: ConvInit = "fan_out"
    """How the depth-wise weights start: a normal of variance 2 / fan_out, or one of deviation 0.02."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def inside(self, shape: Shape) -> Shape:
        """The hidden map."""
        return shape._replace(dim=self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        hidden, positions = self.hidden(shape.dim), shape.positions
        cost = self.act.cost(self.inside(shape))
        cost += primitives.linear(shape.dim, hidden, positions) + primitives.linear(hidden, shape.dim, positions)
        return cost + primitives.dwconv(hidden, (self.kernel_size, self.kernel_size), positions)

    def workspace(self, shape: Shape) -> int:
        hidden = self.inside(shape)
        return hidden.elements + max(hidden.elements, shape.elements, self.act.beside(hidden))

    def build(self, shape: Shape) -> nn.Module:
        act = self.act.build(self.inside(shape))
        return ConvMLPModule(shape.dim, self.hidden(shape.dim), self.kernel_size, act, self.init)


class ConvMLPModule(nn.Module):
    """See `ConvMLP`."""

    def __init__(self, dim: int, hidden: int, kernel_size: int, act: nn.Module, init: ConvInit) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.dwconv = DWConv(hidden, kernel_size, init=init)
        self.act = act
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(activate(self.act, residual_dwconv(self.dwconv, self.fc1(x)), own=True))

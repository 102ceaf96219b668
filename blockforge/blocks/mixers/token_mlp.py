"""Token mixing by a fully connected network over positions."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import Cost, Mixer, Shape, hidden_width
from blockforge.blocks.fields import ActParam, Ratio
from blockforge.blocks.layers import Linear, same_size
from blockforge.blocks.registry import mixer
from blockforge.kernels.cpu import activate, untouched


@mixer("token_mlp")
class TokenMLP(Mixer):
    """Two linear layers over all positions with an activation between them, the same for every channel.

    Shape: x_BHWC -> y_BHWC, only the H and W it was built for: its parameters depend on them.
    Cost: 2 * H * W * mlp_ratio * dim^2 multiply-adds (L = H * W positions, mlp_ratio * dim hidden ones).
    Reference: MLP-Mixer, https://arxiv.org/abs/2105.01601.
    """

    token_rule = "all"

    mlp_ratio: Ratio = 0.5
    """Hidden positions, times dim."""
    act: ActParam = GELU()
    """Activation between the linear layers."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def check(self, shape: Shape) -> None:
        self.hidden(shape.dim)

    def inside(self, shape: Shape) -> Shape:
        """The hidden map, a row of positions for each channel."""
        return Shape(1, shape.dim, self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        hidden, length = self.hidden(shape.dim), shape.positions
        cost = self.act.cost(self.inside(shape))
        cost += primitives.linear(length, hidden, shape.dim, on_map=False)
        return cost + primitives.linear(hidden, length, shape.dim, on_map=False)

    def workspace(self, shape: Shape) -> int:
        inside = self.inside(shape)
        hidden = inside.elements  # over transposed maps the bias is added out of place
        return hidden + max(shape.elements, hidden, self.act.beside(inside))

    def build(self, shape: Shape) -> nn.Module:
        return TokenMLPModule(shape, self.hidden(shape.dim), self.act.build(self.inside(shape)))


class TokenMLPModule(nn.Module):
    """See `TokenMLP`."""

    def __init__(self, shape: Shape, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.size = (shape.height, shape.width)
        self.fc1 = Linear(shape.positions, hidden)
        self.act = act
        self.fc2 = Linear(hidden, shape.positions)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        same_size(x, self.size, "token_mlp")
        x_BCL = rearrange(x, "b h w c -> b c (h w)")
        y_BCL = self.fc2(activate(self.act, self.fc1(x_BCL), untouched(self.fc1, Linear)))
        return rearrange(y_BCL, "b c (h w) -> b h w c", h=self.size[0], w=self.size[1])

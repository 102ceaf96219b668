"""A feed-forward network with global response normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import FFN, Cost, Shape, TokenRule, hidden_width
from blockforge.blocks.fields import ActParam, OddKernel, Ratio
from blockforge.blocks.layers import DWConv, Linear, default_init
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.blocks.registry import ffn
from blockforge.kernels.cpu import activate, untouched

EPS = 1e-6
"""Added to the mean response before the division."""


@ffn("grn_mlp")
class GRNMLP(FFN):
    """Depth-wise convolution and LayerNorm, then linear layer, activation, global response normalisation
    (GRN), linear layer: the channel mixing of Strip-MLP and the inside of ConvNeXt V2's block.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: (2 * mlp_ratio * dim + dw^2) * dim multiply-adds a position.
    Reference: Strip-MLP, ICCV 2023, https://arxiv.org/abs/2307.11458; GRN: ConvNeXt V2,
    https://arxiv.org/abs/2301.00808.
    """

    mlp_ratio: Ratio = 3.0
    """Hidden width, times dim."""
    dw: OddKernel | None = 7
    """Side of the depth-wise kernel (no bias); absent: neither the convolution nor the LayerNorm after it."""
    act: ActParam = GELU()
    """Activation."""

    def tokens_are(self) -> TokenRule:
        return "all" if self.dw is None else "none"

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def inside(self, shape: Shape) -> Shape:
        """The hidden map."""
        return shape._replace(dim=self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        dim, hidden, positions = shape.dim, self.hidden(shape.dim), shape.positions
        cost = primitives.linear(dim, hidden, positions) + self.act.cost(self.inside(shape)) + primitives.norm(hidden)
        if self.dw is not None:
            cost += primitives.dwconv(dim, (self.dw, self.dw), positions, bias=False) + primitives.norm(dim)
        return cost + primitives.linear(hidden, dim, positions)

    def workspace(self, shape: Shape) -> int:
        map_, hidden = shape.elements, self.inside(shape).elements
        act = self.act.beside(self.inside(shape))
        normed = hidden + 3 * self.hidden(shape.dim)  # and for each channel the norm, the response and the factor
        return max(hidden + max(normed, map_, act), 2 * map_ * (self.dw is not None))

    def build(self, shape: Shape) -> nn.Module:
        return GRNMLPModule(shape.dim, self.hidden(shape.dim), self.dw, self.act.build(self.inside(shape)))


class GRNMLPModule(nn.Module):
    """See `GRNMLP`."""

    def __init__(self, dim: int, hidden: int, dw: int | None, act: nn.Module) -> None:
        super().__init__()
        self.dwconv = DWConv(dim, dw, bias=False) if dw is not None else nn.Identity()
        self.layout = layout_of(self.dwconv)
        self.norm = nn.LayerNorm(dim) if dw is not None else nn.Identity()
        self.fc1 = Linear(dim, hidden)
        self.act = act
        self.grn = GRN(hidden)
        self.fc2 = Linear(hidden, dim)
        default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        own = untouched(self.fc1, Linear)
        return self.fc2(self.grn(activate(self.act, self.fc1(self.norm(self.near(x))), own)))

    def near(self, x: Tensor) -> Tensor:
        """What the depth-wise convolution gives, if there is one."""
        return on_map(self.dwconv, x, self.layout)


class GRN(nn.Module):
    """Global response normalisation: `x + gamma * x * response + beta`, where a channel's response is its
    norm over positions, divided by the mean of all channels'."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(dim))
        self.beta = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        norm = _norm_over_positions(x)
        response = norm / (norm.mean(-1, keepdim=True) + EPS)
        return torch.addcmul(self.beta, x, 1 + self.gamma * response)

    def no_weight_decay(self) -> set[str]:
        return {"gamma", "beta"}


def _norm_over_positions(x: Tensor) -> Tensor:
    """The L2 norm of each channel, (B, 1, 1, C)."""
    if x.dtype not in (torch.float32, torch.float64):  # squares may be too large for half precision
        return torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    squares = x.square().sum((1, 2), keepdim=True)  # several times faster than vector_norm on a CPU
    return squares.clamp_min(torch.finfo(x.dtype).tiny).sqrt()  # the root has no derivative at zero

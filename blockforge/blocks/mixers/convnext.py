"""ConvNeXt's block: a large depth-wise convolution, a norm and a feed-forward network in one branch."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import Cost, Mixer, Shape, hidden_width
from blockforge.blocks.ffns.grn_mlp import GRN
from blockforge.blocks.fields import ActParam, NormParam, OddKernel, Ratio
from blockforge.blocks.layers import DWConv, Linear
from blockforge.blocks.leaves import layout_of, on_map, on_nchw
from blockforge.blocks.norms.layer_norm import LayerNorm
from blockforge.blocks.registry import mixer
from blockforge.kernels.cpu import activate, untouched


@mixer("convnext")
class ConvNeXt(Mixer):
    """Depth-wise convolution, norm, linear layer, activation, linear layer; usually the branch
    `{op: convnext, norm: none, scale: 1.0e-6}`. With `grn` it is the block of ConvNeXt V2.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: (2 * mlp_ratio * dim + kernel_size^2) * dim multiply-adds a position.
    Reference: A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545; ConvNeXt V2,
    https://arxiv.org/abs/2301.00808.
    """

    kernel_size: OddKernel = 7
    """Side of the depth-wise kernel."""
    mlp_ratio: Ratio = 4.0
    """Hidden width, times dim."""
    act: ActParam = GELU()
    """Activation between the linear layers."""
    inner_norm: NormParam = LayerNorm(eps=1e-6)
    """Norm behind the convolution, or none."""
    grn: bool = False
    """Global response normalisation behind the activation."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.mlp_ratio)

    def inside(self, shape: Shape) -> Shape:
        """The hidden map."""
        return shape._replace(dim=self.hidden(shape.dim))

    def check(self, shape: Shape) -> None:
        if self.inner_norm is not None:
            self.inner_norm.check(shape)

    def cost(self, shape: Shape) -> Cost:
        dim, hidden, positions = shape.dim, self.hidden(shape.dim), shape.positions
        cost = primitives.dwconv(dim, (self.kernel_size, self.kernel_size), positions)
        cost += self.act.cost(self.inside(shape))
        if self.inner_norm is not None:
            cost += self.inner_norm.cost(shape)
        if self.grn:
            cost += primitives.norm(hidden)
        return cost + primitives.linear(dim, hidden, positions) + primitives.linear(hidden, dim, positions)

    def workspace(self, shape: Shape) -> int:
        hidden = self.inside(shape).elements
        norm = self.inner_norm.workspace(shape) if self.inner_norm is not None else 0
        behind = max(hidden * self.grn, self.act.beside(self.inside(shape)))
        return max(shape.elements + norm, shape.elements + hidden, hidden + behind)

    def build(self, shape: Shape) -> nn.Module:
        norm = self.inner_norm.build(shape) if self.inner_norm is not None else nn.Identity()
        act = self.act.build(self.inside(shape))
        return ConvNeXtModule(shape.dim, self.hidden(shape.dim), self.kernel_size, act, norm, self.grn)


class ConvNeXtModule(nn.Module):
    """See `ConvNeXt`."""

    def __init__(self, dim: int, hidden: int, kernel_size: int, act: nn.Module, norm: nn.Module, grn: bool) -> None:
        super().__init__()
        self.dwconv = DWConv(dim, kernel_size, init="trunc_normal")
        self.norm, self.norm_layout = norm, layout_of(norm)
        self.fc1 = Linear(dim, hidden)
        self.act = act
        self.grn = GRN(hidden) if grn else nn.Identity()
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        own = untouched(self.fc1, Linear)
        return self.fc2(self.grn(activate(self.act, self.fc1(self.convolved(x)), own)))

    def convolved(self, x: Tensor) -> Tensor:
        """What the feed-forward network reads."""
        return on_map(self.norm, on_nchw(self.dwconv, x), self.norm_layout)

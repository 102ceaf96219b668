"""The inverted bottleneck: a depth-wise convolution between a widening and a narrowing 1x1 convolution."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.silu import SiLU
from blockforge.blocks.base import Act, Cost, Mixer, Shape, hidden_width
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import row
from blockforge.blocks.fields import ActParam, OddKernel, Ratio
from blockforge.blocks.layers import DWConv, Linear
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.part import Part
from blockforge.blocks.parts.dwconv import DepthwisePart
from blockforge.blocks.parts.linear import LinearPart
from blockforge.blocks.registry import mixer
from blockforge.kernels.cpu import activate, untouched


@mixer("mbconv")
class MBConv(Mixer):
    """1x1 convolution to `expand` times the width, depth-wise convolution, squeeze-and-excitation, 1x1
    convolution back; the convolutions without biases, each followed by BatchNorm, the first two by an
    activation. Usually the branch `{op: mbconv, norm: none}`.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: (2 * dim + kernel_size^2) * expand * dim multiply-adds a position.
    Reference: MobileNetV2, CVPR 2018, https://arxiv.org/abs/1801.04381; with squeeze-and-excitation:
    EfficientNet, ICML 2019, https://arxiv.org/abs/1905.11946.
    """

    expand: Ratio = 4.0
    """Width inside, times dim."""
    kernel_size: OddKernel = 3
    """Side of the depth-wise kernel."""
    se_ratio: Ratio | None = 0.25
    """Hidden width of squeeze-and-excitation, times dim; absent: none."""
    act: ActParam = SiLU()
    """Activation."""

    def hidden(self, dim: int) -> int:
        return hidden_width(dim, self.expand, "expand")

    def squeezed(self, dim: int) -> int | None:
        """Hidden width of squeeze-and-excitation."""
        return hidden_width(dim, self.se_ratio, "se_ratio") if self.se_ratio is not None else None

    def inside(self, shape: Shape) -> Shape:
        """The map between the 1x1 convolutions."""
        return shape._replace(dim=self.hidden(shape.dim))

    def cost(self, shape: Shape) -> Cost:
        dim, hidden, positions = shape.dim, self.hidden(shape.dim), shape.positions
        cost = primitives.linear(dim, hidden, positions, bias=False) + primitives.norm(hidden)
        cost += primitives.dwconv(hidden, (self.kernel_size, self.kernel_size), positions, bias=False)
        if (squeezed := self.squeezed(dim)) is not None:
            cost += primitives.linear(hidden, squeezed, 1) + primitives.linear(squeezed, hidden, 1)
            cost += self.act.cost(Shape(1, 1, squeezed))
        cost += self.act.cost(self.inside(shape)) + self.act.cost(self.inside(shape))
        cost += primitives.norm(hidden) + primitives.linear(hidden, dim, positions, bias=False)
        return cost + primitives.norm(dim)

    def workspace(self, shape: Shape) -> int:
        hidden = self.inside(shape)
        return max(hidden.elements + max(hidden.elements, self.act.beside(hidden)), 2 * shape.elements)

    def as_program(self, shape: Shape) -> Program:
        hidden, squeezed = self.hidden(shape.dim), self.squeezed(shape.dim)
        depthwise = DepthwisePart(kernel_size=self.kernel_size, padding=self.kernel_size // 2, bias=False)
        gate = SqueezePart(hidden=squeezed, act=self.act) if squeezed is not None else None
        wide, narrow = (LinearPart(bias=False), hidden), (LinearPart(bias=False), shape.dim)
        members = (wide, BatchNorm(), self.act, depthwise, BatchNorm(), self.act, gate, narrow, BatchNorm())
        return row(shape, *members)

    def build(self, shape: Shape) -> nn.Module:
        dim, inside, squeezed = shape.dim, self.inside(shape), self.squeezed(shape.dim)
        hidden = inside.dim
        gate: nn.Module = nn.Identity()
        if squeezed is not None:
            gate = SqueezeExcite(hidden, squeezed, self.act.build(Shape(1, 1, squeezed)))
        return Maps(
            Linear(dim, hidden, bias=False),
            nn.BatchNorm2d(hidden),
            self.act.build(inside),
            DWConv(hidden, self.kernel_size, bias=False),
            nn.BatchNorm2d(hidden),
            self.act.build(inside),
            gate,
            Linear(hidden, dim, bias=False),
            nn.BatchNorm2d(dim),
        )


class SqueezePart(Part):
    """Squeeze-and-excitation as a part."""

    op = "squeeze_excite"
    hidden: int
    act: Act

    def out_shape(self, shape: Shape, dim: int | None) -> Shape:
        return shape

    def cost(self, shape: Shape, dim: int | None) -> Cost:
        cost = primitives.linear(shape.dim, self.hidden, 1) + primitives.linear(self.hidden, shape.dim, 1)
        return cost + self.act.cost(Shape(1, 1, self.hidden))

    def workspace(self, shape: Shape, dim: int | None) -> int:
        return shape.elements + shape.dim

    def build(self, shape: Shape, dim: int | None) -> nn.Module:
        return SqueezeExcite(shape.dim, self.hidden, self.act.build(Shape(1, 1, self.hidden)))


class SqueezeExcite(nn.Module):
    """Weighs each channel of an image from the means of all: `x * sigmoid(fc2(act(fc1(mean(x)))))`."""

    def __init__(self, dim: int, hidden: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.act = act
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x.mean((1, 2), keepdim=True))
        return x * self.fc2(activate(self.act, hidden, untouched(self.fc1, Linear))).sigmoid()

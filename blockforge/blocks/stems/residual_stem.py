"""VSSD's stem: three steps of 3x3 convolutions with a residual branch, a quarter of the image's side."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.relu import ReLU
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.compose.joined import Add
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import Member, add_row
from blockforge.blocks.compose.steps import Steps
from blockforge.blocks.fields import Ratio
from blockforge.blocks.layers import Conv2d, Linear, default_init
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.parts.linear import LinearPart
from blockforge.blocks.primitives import conv_size
from blockforge.blocks.registry import stem
from blockforge.errors import OpError

KERNEL = (3, 3)


@stem("residual_stem")
class ResidualStem(Stem):
    """3x3 convolution of stride 2 to half the width; a residual branch of two more; then a 3x3 convolution of
    stride 2 to `ratio` times the width and a 1x1 convolution to the width. Without biases, each followed by
    BatchNorm; ReLU where no sum and no output follows.

    Shape: x_BHWC -> y_B(H/4)(W/4)D, sizes rounded up.
    Cost: at half size 9 (C + D) D / 2 multiply-adds a position, at quarter size 5.5 ratio * D^2.
    Raises: OpError if D is odd.
    Reference: VSSD, https://arxiv.org/abs/2407.18559; MLLA, https://arxiv.org/abs/2405.16605.
    """

    ratio: Ratio = 4.0
    """Width of the last 3x3 convolution, times the stem's width."""

    def half(self, shape: Shape, dim: int) -> Shape:
        """The map after the first convolution."""
        return Shape(conv_size(shape.height, 3, 2, 1), conv_size(shape.width, 3, 2, 1), dim // 2)

    def hidden(self, shape: Shape, dim: int) -> Shape:
        """The map after the last 3x3 convolution."""
        half = self.half(shape, dim)
        sides = conv_size(half.height, 3, 2, 1), conv_size(half.width, 3, 2, 1)
        return Shape(*sides, int(dim * self.ratio))

    def check(self, shape: Shape, dim: int) -> None:
        if dim % 2:
            text = f"dim {dim} is odd, and the stem begins with half of it"
            raise OpError(text, hint=f"{dim - 1} or {dim + 1} would do")

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return self.hidden(shape, dim)._replace(dim=dim)

    def cost(self, shape: Shape, dim: int) -> Cost:
        half, hidden = self.half(shape, dim), self.hidden(shape, dim)
        one, cost = half.elements, Cost()
        # The map at half size lives beside what its branch reads and gives.
        branch = ((half, half, 2 * one), (half, half, 3 * one))
        for x, out, alive in ((shape, half, one), *branch, (half, hidden, one + hidden.elements)):
            cost += primitives.conv(x.dim, out.dim, KERNEL, out.positions, read=x.positions, bias=False, alive=alive)
            cost += primitives.norm(out.dim)
        cost += primitives.linear(hidden.dim, dim, hidden.positions, bias=False)
        return cost + primitives.norm(dim)

    def workspace(self, shape: Shape, dim: int) -> int:
        half, hidden = self.half(shape, dim).elements, self.hidden(shape, dim).elements
        return max(3 * half, half + 2 * hidden)

    def as_program(self, shape: Shape, dim: int) -> Program:
        steps, half, hidden = Steps(shape), dim // 2, int(dim * self.ratio)
        strided, plain = (Conv(kernel_size=3, stride=s, padding=1, bias=False) for s in (2, 1))
        x = add_row(steps, 0, [(strided, half), BatchNorm(), ReLU()], "entry")
        branch: list[Member] = [(plain, half), BatchNorm(), ReLU(), (plain, half), BatchNorm()]
        y = steps.step(Add(), (x, add_row(steps, x, branch, "branch")), None, ("add",))
        y = add_row(steps, y, [(strided, hidden), BatchNorm(), ReLU()], "widen")
        add_row(steps, y, [(LinearPart(bias=False), dim), BatchNorm()], "narrow")
        return Program(shape, tuple(steps.steps))

    def build(self, shape: Shape, dim: int) -> nn.Module:
        return ResidualStemModule(shape.dim, dim, int(dim * self.ratio))


class ResidualStemModule(nn.Module):
    """See `ResidualStem`. ReLU works in place: nothing else reads what it is given."""

    def __init__(self, in_chans: int, dim: int, hidden: int) -> None:
        super().__init__()
        half = dim // 2
        self.entry = Maps(*_conv(in_chans, half, stride=2), nn.ReLU(inplace=True))
        self.branch = Maps(*_conv(half, half), nn.ReLU(inplace=True), *_conv(half, half))
        self.widen = Maps(*_conv(half, hidden, stride=2), nn.ReLU(inplace=True))
        self.narrow = Maps(Linear(hidden, dim, bias=False), nn.BatchNorm2d(dim))
        default_init(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.widen(self.summed(x)))

    def summed(self, x: Tensor) -> Tensor:
        """The map at half size."""
        x = self.entry(x)
        return x + self.branch(x)


def _conv(in_chs: int, out_chs: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    return Conv2d(in_chs, out_chs, 3, stride=stride, bias=False), nn.BatchNorm2d(out_chs)

"""A stem of 3x3 convolutions, two of them strided: a quarter of the image's side."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.acts.gelu import GELU
from blockforge.blocks.base import Act, Cost, Shape, Stem
from blockforge.blocks.compose.program import Program
from blockforge.blocks.compose.rows import Member, row
from blockforge.blocks.fields import ActParam, NormParam, Width
from blockforge.blocks.layers import Conv2d
from blockforge.blocks.maps import Maps
from blockforge.blocks.norms.batch_norm import BatchNorm
from blockforge.blocks.parts.conv import Conv
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import stem
from blockforge.errors import OpError


@stem("conv_stem2")
class ConvStem2(Stem):
    """Two 3x3 convolutions of stride 2, each with a norm, an activation between them; `extra` ones of
    stride 1 in the middle. The stem of SparX, VMamba and MambaVision.

    Shape: x_BHWC -> y_B(H/4)(W/4)D, sizes rounded up.
    Cost: 9 M (C + extra M) multiply-adds a position at half size, M = mid, and 9 M D at quarter size.
    Raises: OpError if mid is absent and D is 1.
    Reference: SparX, https://arxiv.org/abs/2409.09649; VMamba, https://arxiv.org/abs/2401.10166; MambaVision,
    https://arxiv.org/abs/2407.08083.
    """

    mid: Width | None = None
    """Channels in the middle; absent: half of those given."""
    extra: Annotated[int, Field(ge=0, le=16)] = 0
    """Further convolutions in the middle, of stride 1."""
    norm: NormParam = BatchNorm()
    """Norm after each convolution, or none."""
    act: ActParam | None = None
    """Activation behind every norm; absent: GELU, but none behind the last."""
    bias: bool | None = None
    """Bias of the convolutions; absent: only where the norm that follows asks for one (a layer_norm does)."""

    @property
    def has_bias(self) -> bool:
        return self.bias if self.bias is not None else self.norm is not None and self.norm.bias_before

    @property
    def inner(self) -> Act:
        """The activation of the maps in the middle."""
        return self.act if self.act is not None else GELU()

    def middle(self, shape: Shape, dim: int) -> Shape:
        """The map after the first convolution."""
        return conv_shape(shape, self.mid or dim // 2, 3, 2)

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return conv_shape(self.middle(shape, dim), dim, 3, 2)

    def check(self, shape: Shape, dim: int) -> None:
        if self.middle(shape, dim).dim < 1:
            raise OpError(f"half of dim {dim} leaves no channels in the middle", hint="give mid", param="mid")
        if self.norm is not None:
            self.norm.check(self.middle(shape, dim))
            self.norm.check(self.out_shape(shape, dim))

    def cost(self, shape: Shape, dim: int) -> Cost:
        mid, out = self.middle(shape, dim), self.out_shape(shape, dim)
        cost = self._step(shape, mid, mid.elements) + self._step(mid, out, mid.elements + out.elements)
        cost += self.inner.cost(mid) + (self.act.cost(out) if self.act is not None else Cost())
        for _ in range(self.extra):
            cost += self._step(mid, mid, 2 * mid.elements) + self.inner.cost(mid)
        return cost

    def _step(self, x: Shape, out: Shape, alive: int) -> Cost:
        held = {"read": x.positions, "alive": alive}
        cost = primitives.conv(x.dim, out.dim, (3, 3), out.positions, bias=self.has_bias, **held)
        return cost + (self.norm.cost(out) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        mid, out = self.middle(shape, dim), self.out_shape(shape, dim)
        norms = [self.norm.workspace(at) if self.norm is not None else 0 for at in (mid, out)]
        last = self.act.beside(out) if self.act is not None else 0
        return max(
            mid.elements + max(norms[0], mid.elements * (self.extra > 0), self.inner.beside(mid)),
            out.elements + max(norms[1], mid.elements, last),
        )

    def as_program(self, shape: Shape, dim: int) -> Program:
        mid = self.middle(shape, dim).dim
        strided, plain = (Conv(kernel_size=3, stride=s, padding=1, bias=self.has_bias) for s in (2, 1))
        middle: list[Member] = [self.inner, (plain, mid), self.norm] * self.extra
        return row(shape, (strided, mid), self.norm, *middle, self.inner, (strided, dim), self.norm, self.act)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        mid, out = self.middle(shape, dim), self.out_shape(shape, dim)
        steps = [*self._modules(shape.dim, mid, 2), self.inner.build(mid)]
        for _ in range(self.extra):
            steps += [*self._modules(mid.dim, mid, 1), self.inner.build(mid)]
        steps += self._modules(mid.dim, out, 2)
        return Maps(*steps, *([self.act.build(out)] if self.act is not None else []))

    def _modules(self, in_chs: int, out: Shape, stride: int) -> list[nn.Module]:
        norm = self.norm.build(out) if self.norm is not None else nn.Identity()
        return [Conv2d(in_chs, out.dim, 3, stride=stride, bias=self.has_bias, init="trunc_normal"), norm]

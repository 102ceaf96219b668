"""Focal modulation: each position is modulated by its surroundings at several scales."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Mixer, Shape
from blockforge.blocks.fields import NormParam, OddKernel
from blockforge.blocks.layers import DWConv, Linear
from blockforge.blocks.leaves import layout_of, on_map, on_nchw
from blockforge.blocks.registry import mixer


@mixer("focal_modulation")
class FocalModulation(Mixer):
    """A linear layer gives queries, context and gates. The context runs through depth-wise convolutions of
    growing kernels; each level, and the mean of the last one over the map, is weighted by its gate and
    summed. A linear layer of the sum multiplies the queries.

    Shape: x_BHWC -> y_BHWC, any H and W.
    Cost: 4 * dim^2 and the kernels' areas * dim multiply-adds a position.
    Reference: Focal Modulation Networks, NeurIPS 2022, https://arxiv.org/abs/2203.11926.
    """

    levels: Annotated[int, Field(ge=1, le=16)] = 2
    """Depth-wise convolutions, one behind the other."""
    window: OddKernel = 3
    """Side of the first kernel."""
    growth: Annotated[int, Field(ge=0, le=16, multiple_of=2)] = 2
    """By how much each kernel's side is larger than the one before."""
    normalize: bool = False
    """Divide the sum of the levels by their number."""
    inner_norm: NormParam = None
    """Norm of the modulated queries, or none."""

    @property
    def kernels(self) -> tuple[int, ...]:
        """Sides of the kernels."""
        return tuple(self.window + self.growth * level for level in range(self.levels))

    def check(self, shape: Shape) -> None:
        if self.inner_norm is not None:
            self.inner_norm.check(shape)

    def cost(self, shape: Shape) -> Cost:
        dim, positions = shape.dim, shape.positions
        cost = primitives.linear(dim, 2 * dim + self.levels + 1, positions)
        for side in self.kernels:
            cost += primitives.dwconv(dim, (side, side), positions, bias=False)
        if self.inner_norm is not None:
            cost += self.inner_norm.cost(shape)
        return cost + primitives.linear(dim, dim, positions) + primitives.linear(dim, dim, positions)

    def workspace(self, shape: Shape) -> int:
        mixed = shape.positions * (2 * shape.dim + self.levels + 1)
        context = 2 if self.levels == 1 else 4  # a convolution and its gelu; the sum and the old context
        norm = self.inner_norm.workspace(shape) if self.inner_norm is not None else 0
        return mixed + max(max(context, 2 + self.normalize) * shape.elements, shape.elements + norm)

    def build(self, shape: Shape) -> nn.Module:
        norm = self.inner_norm.build(shape) if self.inner_norm is not None else nn.Identity()
        return FocalModulationModule(shape.dim, self.kernels, self.normalize, norm)


class FocalModulationModule(nn.Module):
    """See `FocalModulation`. The rows of `fc` are queries, context, gates."""

    def __init__(self, dim: int, kernels: tuple[int, ...], normalize: bool, norm: nn.Module) -> None:
        super().__init__()
        self.split = [dim, dim, len(kernels) + 1]
        self.normalize = normalize
        self.fc = Linear(dim, sum(self.split))
        self.convs = nn.ModuleList(DWConv(dim, side, bias=False, init="trunc_normal") for side in kernels)
        self.modulator = Linear(dim, dim)
        self.norm, self.norm_layout = norm, layout_of(norm)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.fc(x).split(self.split, dim=-1)
        return self.proj(on_map(self.norm, query * self.modulator(self.gather(context, gates)), self.norm_layout))

    def gather(self, context: Tensor, gates: Tensor) -> Tensor:
        """The levels of the context, weighted and summed."""
        total: Tensor | None = None
        for level, conv in enumerate(self.convs):
            context = F.gelu(on_nchw(conv, context))
            gate = gates[..., level : level + 1]
            total = context * gate if total is None else total.addcmul_(context, gate)
        whole = F.gelu(context.mean((1, 2), keepdim=True))
        assert total is not None
        total = total.addcmul_(whole, gates[..., -1:])
        return total / (len(self.convs) + 1) if self.normalize else total

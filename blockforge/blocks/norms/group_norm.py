"""Group normalisation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Layout, Norm, Shape, divisible
from blockforge.blocks.fields import Count, Eps
from blockforge.blocks.registry import norm
from blockforge.kernels.costs import rehearsing
from blockforge.kernels.cpu import faster
from blockforge.kernels.observers import is_transformed


class GroupNorm2d(nn.GroupNorm):
    """torch's GroupNorm of x_BCHW, with or without a bias."""

    def __init__(self, num_groups: int, dim: int, eps: float, bias: bool) -> None:
        super().__init__(num_groups, dim, eps=eps)
        if not bias:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @faster
    def forward(self, x: Tensor) -> Tensor:
        if (torch.is_grad_enabled() and not x.requires_grad) or is_transformed():
            # Behind frozen layers torch's channels-last backward crashes on a CPU (torch 2.13), and forward mode over
            # it wants views that there are not. A map of one position counts as contiguous whatever its strides say:
            # a copy has others.
            x = x.clone(memory_format=torch.contiguous_format)
        if x.is_meta and rehearsing():
            y: Tensor = _Rehearsed.apply(x, self.weight, self.bias, self.num_groups)  # type: ignore[no-untyped-call]
            return y
        return super().forward(x)


class _Rehearsed(torch.autograd.Function):
    """What a CPU keeps for the backward pass. The meta device would keep a copy of the map in another layout."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, num_groups: int) -> Tensor:
        return torch.empty_like(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, num_groups = inputs
        ctx.has_bias = bias is not None
        statistics = x.new_empty(2, x.shape[0], num_groups)
        ctx.save_for_backward(x, weight, statistics)

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight) if ctx.has_bias else None, None


@norm("group_norm")
class GroupNorm(Norm):
    """Group normalisation: statistics of each image over groups of channels and all positions.

    Shape: keeps it.
    Cost: 2 * dim parameters, dim without a bias; no multiply-adds.
    Raises: OpError if `num_groups` does not divide dim.
    Reference: Group Normalization, https://arxiv.org/abs/1803.08494.
    """

    token_rule = "all"
    silent = frozenset({"bias"})

    num_groups: Count = 1
    """Groups of channels; 1 normalises over the whole map."""
    eps: Eps = 1e-5
    """Added to the variance."""
    bias: bool | None = None
    """false: a learnt scale alone; absent: a scale and a bias."""

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def check(self, shape: Shape) -> None:
        divisible(shape.dim, self.num_groups, "dim", "num_groups", "num_groups")

    def cost(self, shape: Shape) -> Cost:
        return primitives.norm(shape.dim) if self.bias is not False else Cost(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements + 2 * self.num_groups  # the mean and the deviation

    def build(self, shape: Shape) -> nn.Module:
        return GroupNorm2d(self.num_groups, shape.dim, self.eps, self.bias is not False)

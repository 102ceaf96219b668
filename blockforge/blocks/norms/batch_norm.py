"""Batch normalisation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from blockforge import torch_private
from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Layout, Norm, Shape
from blockforge.blocks.fields import Eps
from blockforge.blocks.filters import Filter, affine
from blockforge.blocks.registry import norm
from blockforge.errors import OpError


@norm("batch_norm")
class BatchNorm(Norm):
    """Batch normalisation: statistics of each channel over batch and positions, running ones in eval mode.

    Shape: keeps it.
    Cost: 2 * dim parameters (running statistics are buffers); no multiply-adds.
    Reference: Batch Normalization, https://arxiv.org/abs/1502.03167.
    """

    token_rule = "each"
    silent = frozenset({"init"})

    eps: Eps = 1e-5
    """Added to the variance."""
    init: Annotated[float, Field(ge=-1e4, le=1e4)] | None = None
    """What all factors start at; absent: 1. At 0 the branch that ends in it gives nothing at first."""

    def resolved(self, shape: Shape) -> BatchNorm:
        return self.model_copy(update={"init": None}) if self.init == 1 else self

    @property
    def layout(self) -> Layout:
        return "NCHW"

    def as_filter(self, shape: Shape) -> Filter:
        return affine(shape.dim, bias=True)

    def filter_values(self, module: nn.Module) -> tuple[Tensor, Tensor | None]:
        """By the running statistics. Raises: OpError for a module that keeps none, or is none of torch's."""
        if not isinstance(module, torch_private.BatchNorm) or module.running_mean is None or module.running_var is None:
            raise OpError(f"a {type(module).__name__} is no BatchNorm with running statistics")
        scale = (module.running_var.double() + module.eps).rsqrt()
        if module.weight is not None:
            scale = scale * module.weight.double()
        term = -module.running_mean.double() * scale
        return scale[:, None, None, None], term if module.bias is None else term + module.bias.double()

    def cost(self, shape: Shape) -> Cost:
        return primitives.norm(shape.dim)

    def workspace(self, shape: Shape) -> int:
        return shape.elements

    def build(self, shape: Shape) -> nn.Module:
        made = nn.BatchNorm2d(shape.dim, eps=self.eps)
        if self.init is not None:
            nn.init.constant_(made.weight, self.init)
        return made

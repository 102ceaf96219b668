"""Swin's patch merging: four neighbours side by side, a norm, a linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Downsample, Shape
from blockforge.blocks.fields import NormParam
from blockforge.blocks.layers import Linear
from blockforge.blocks.leaves import layout_of, on_map
from blockforge.blocks.norms.layer_norm import LayerNorm
from blockforge.blocks.registry import downsample


@downsample("patch_merging")
class PatchMerging(Downsample):
    """The channels of each 2x2 square concatenated, a norm over all four, a linear layer without bias. Odd
    sides are padded with zeros.

    Shape: x_BHWC -> y_B(H/2)(W/2)D, sizes rounded up.
    Cost: 4 * C * D multiply-adds an output position.
    Reference: Swin Transformer, ICCV 2021, section 3.1, https://arxiv.org/abs/2103.14030.
    """

    norm: NormParam = LayerNorm()
    """Norm between the concatenation and the linear layer, or none."""

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        return Shape(-(-shape.height // 2), -(-shape.width // 2), dim)

    def merged(self, shape: Shape) -> Shape:
        """The map after the concatenation."""
        return self.out_shape(shape, 4 * shape.dim)

    def check(self, shape: Shape, dim: int) -> None:
        if self.norm is not None:
            self.norm.check(self.merged(shape))

    def cost(self, shape: Shape, dim: int) -> Cost:
        merged = self.merged(shape)
        cost = primitives.linear(merged.dim, dim, merged.positions, bias=False)
        return cost + (self.norm.cost(merged) if self.norm is not None else Cost())

    def workspace(self, shape: Shape, dim: int) -> int:
        merged = self.merged(shape)
        padded = merged.elements * bool(shape.height % 2 or shape.width % 2)
        norm = self.norm.workspace(merged) if self.norm is not None else 0
        return merged.elements + max(padded, norm, merged.positions * dim)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        norm = self.norm.build(self.merged(shape)) if self.norm is not None else nn.Identity()
        return PatchMergingModule(shape.dim, dim, norm)


class PatchMergingModule(nn.Module):
    """See `PatchMerging`. The four parts: upper left, lower left, upper right, lower right."""

    def __init__(self, in_dim: int, dim: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.norm_layout = norm, layout_of(norm)
        self.proj = Linear(4 * in_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(on_map(self.norm, self.merge(x), self.norm_layout))

    def merge(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return rearrange(x, "b (h down) (w right) c -> b h w (right down c)", down=2, right=2)

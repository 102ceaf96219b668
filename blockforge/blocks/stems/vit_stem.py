"""The stem of vision transformers: patches, positions, and a class token if asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape, Stem
from blockforge.blocks.fields import KernelSize
from blockforge.blocks.layers import Conv2d, default_init, same_size
from blockforge.blocks.leaves import on_nchw
from blockforge.blocks.primitives import conv_shape
from blockforge.blocks.registry import stem
from blockforge.blocks.resize import bicubic, square_grid
from blockforge.blocks.token_rows import beside


@stem("vit_stem")
class ViTStem(Stem):
    """A linear layer on each patch x patch square of the image, plus a learnt vector for each position. With
    a class token, an extra token stands beside the map: a head with `pool: token` reads it. Patches overlap where the
    stride is smaller than they are.

    Shape: x_BHWC -> y_B(H/patch)(W/patch)D, sizes rounded down (with a stride (H - patch)/stride + 1); with a class
        token y_B1(1 + L)D, L patches. Only the H and W it was built for where there is a vector for each position, or
        a token, since a row does not tell how its patches lie.
    Cost: patch^2 * C * D multiply-adds a patch.
    Reference: An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929; stride: Rethinking
    Spatial Dimensions of Vision Transformers (PiT), ICCV 2021, https://arxiv.org/abs/2103.16302.
    """

    patch: KernelSize = 16
    """Side of a patch."""
    stride: KernelSize | None = None
    """Distance of patches; absent: their side."""
    class_token: bool = True
    """A learnt token beside the map of patches."""
    pos_embed: bool = True
    """A learnt vector for each position, the class token's included."""

    def patches(self, shape: Shape, dim: int) -> Shape:
        """The map of patches."""
        grid = conv_shape(shape, dim, self.patch, self.stride or self.patch, 0)
        return Shape(max(0, grid.height), max(0, grid.width), dim)  # below 0 where no patch fits

    def out_shape(self, shape: Shape, dim: int) -> Shape:
        patches = self.patches(shape, dim)
        if not self.class_token or not patches.positions:
            return patches
        return patches._replace(extra=1)

    def total_stride(self, shape: Shape, dim: int) -> int:
        return self.stride or self.patch

    def cost(self, shape: Shape, dim: int) -> Cost:
        patches, out = self.patches(shape, dim), self.out_shape(shape, dim)
        cost = primitives.conv(
            shape.dim, dim, (self.patch, self.patch), patches.positions, read=shape.positions, alive=patches.elements
        )
        return cost + Cost(params=dim * self.class_token + out.elements * self.pos_embed)

    def workspace(self, shape: Shape, dim: int) -> int:
        patches, out = self.patches(shape, dim).elements, self.out_shape(shape, dim).elements
        joined = patches + out if self.class_token else patches
        return max(joined, (1 + self.pos_embed) * out)

    def build(self, shape: Shape, dim: int) -> nn.Module:
        size = self.patches(shape, dim)[:2]
        stride = self.stride or self.patch
        return ViTStemModule(shape.dim, dim, size, self.patch, stride, self.class_token, self.pos_embed)


class ViTStemModule(nn.Module):
    """See `ViTStem`."""

    def __init__(
        self,
        in_chans: int,
        dim: int,
        size: tuple[int, int],
        patch: int,
        stride: int,
        class_token: bool,
        pos_embed: bool,
    ) -> None:
        super().__init__()
        self.size = size
        self.proj = default_init(Conv2d(in_chans, dim, patch, stride=stride, padding=0))
        self.class_token = nn.Parameter(torch.empty(1, 1, 1, dim)) if class_token else None
        positions = size[0] * size[1] + class_token
        self.pos_embed = nn.Parameter(torch.empty(positions, dim)) if pos_embed else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for learnt in (self.class_token, self.pos_embed):
            if learnt is not None:
                nn.init.trunc_normal_(learnt, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        return x + self.pos_embed.view(x.shape[1:]) if self.pos_embed is not None else x

    def tokens(self, x: Tensor) -> Tensor:
        """The patches, behind the class token if there is one."""
        x = on_nchw(self.proj, x)
        if self.pos_embed is not None or self.class_token is not None:
            same_size(x, self.size, "vit_stem")
        if self.class_token is None:
            return x
        return beside(self.class_token.expand(x.shape[0], -1, -1, -1), x)

    def no_weight_decay(self) -> set[str]:
        return {name for name in ("class_token", "pos_embed") if getattr(self, name) is not None}

    def resized(self, name: str, value: Tensor) -> Tensor | None:
        """The vectors of another square image's positions, as DeiT's are resized; the class token's stays apart."""
        prefix, dim = int(self.class_token is not None), self.proj.out_channels
        if name != "pos_embed" or value.shape[-1] != dim:
            return None
        rows = value.reshape(-1, dim)
        old = square_grid(len(rows) - prefix)
        if old is None:
            return None
        return torch.cat([rows[:prefix], bicubic(rows[prefix:], old, self.size, antialias=True)])

"""Positions of a map as tokens beside another."""

from __future__ import annotations

from torch import Tensor, nn

from blockforge.blocks.base import Cost, Shape
from blockforge.blocks.joins.meeting import listed
from blockforge.blocks.layers import same_size
from blockforge.blocks.part import Join
from blockforge.blocks.registry import join
from blockforge.blocks.token_rows import beside
from blockforge.errors import OpError


@join("as_tokens")
class AsTokens(Join):
    """The positions of the first map stand as extra tokens beside the second: what tokens and map went through apart
    comes together again.

    Shape: t_BhwC, x_BHWC -> y_B1(hw + L)C, L = H * W; only the sizes it was built for.
    Cost: no parameters and no multiply-adds.
    Raises: OpError unless there are two maps of one width, the second without tokens.
    Reference: CrossViT, ICCV 2021, https://arxiv.org/abs/2103.14899.
    """

    token_rule = "own"

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        if len(shapes) != 2:
            text = f"as_tokens has {len(shapes)} map{'s' * (len(shapes) > 1)}"
            raise OpError(text, hint="two: the tokens, then the map that they stand beside", code="tokens")
        if shapes[0].dim != shapes[1].dim:
            hint = "a linear layer gives the tokens the width of the map"
            raise OpError(f"maps of {listed(shapes)} differ in their widths", hint=hint, code="widths")
        if shapes[1].extra:
            text = f"there are tokens beside {shapes[1]}, the map of as_tokens"
            raise OpError(text, hint="drop_tokens before it", code="tokens")

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return shapes[1]._replace(extra=shapes[0].positions)

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        return Cost()

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        return self.out_shape(shapes, dim).elements

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        return AsTokensModule(shapes[0], shapes[1])


class AsTokensModule(nn.Module):
    """See `AsTokens`."""

    def __init__(self, tokens: Shape, shape: Shape) -> None:
        super().__init__()
        self.extra, self.size = tokens.row[:2], (shape.height, shape.width)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        same_size(tokens, self.extra, "as_tokens")
        same_size(x, self.size, "as_tokens")
        return beside(tokens.flatten(1, 2).unsqueeze(1), x)

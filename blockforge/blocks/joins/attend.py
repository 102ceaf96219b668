"""Attention between maps, as a join: of queries, keys and values that others have made."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Shape, TokenRule, divisible
from blockforge.blocks.fields import Count, Eps, Ratio
from blockforge.blocks.joins.attention import (
    AttendModule,
    ChannelAttendModule,
    ChannelProducts,
    LinearAttendModule,
    Order,
    Splits,
    TalkingAttendModule,
)
from blockforge.blocks.joins.meeting import listed
from blockforge.blocks.joins.position_bias import BiasParam
from blockforge.blocks.joins.roles import Roles, channel_elements, fused_elements, linear_elements, product_elements
from blockforge.blocks.part import Join
from blockforge.blocks.registry import join
from blockforge.errors import OpError

DEFAULT_HEAD_DIM = 32
_OTHER_NAMES = {"kind": "form", "layout": "order"}


@join("attend")
class Attend(Join):
    """Attention: each position of the queries gets a mean of the values, weighted by how its query fits their keys.
    Of three maps they are queries, keys and values; of two, queries, and keys beside values; of one, all three beside
    each other. The linear layers around it are blocks of their own.

    With `form: channels` it is channels that attend to channels: each channel of a head's queries gets a mean of the
    values' channels, weighted by how it fits those of the keys: by the products of all positions, of length 1 unless
    `normalize` is false.

    Queries and keys are equally wide; or keys as wide as one head, which all heads then share (multi-query attention).
    Keys and values may be of another size than the queries, values of another width.

    Shape: q_BHWC, k_BhwC, v_BhwD -> y_BHWD, also kv_Bhw(C + D), or qkv_BHW(2C + D).
    Cost: L S (C + D) multiply-adds of L queries and S keys, 2 L S num_heads^2 more of talking heads, L (h + w) C more
        of `rel_pos_vectors`; `relu_linear` has (L + S) C (D / num_heads + 1), `channels` 2 L C^2 / num_heads.
    Raises: OpError if the heads do not divide the widths, or the maps do not fit each other; at run time if a table of
        positions meets a map that is larger than the one it was built for.
    Reference: Attention Is All You Need, https://arxiv.org/abs/1706.03762; relu_linear: EfficientViT, ICCV 2023,
    https://arxiv.org/abs/2205.14756; channels: XCiT, NeurIPS 2021, https://arxiv.org/abs/2106.09681, and by products as
    they are: DaViT, ECCV 2022, https://arxiv.org/abs/2204.03645; cosine and rel_pos_mlp: Swin Transformer V2,
    CVPR 2022, https://arxiv.org/abs/2111.09883; symmetric tables: LeViT, ICCV 2021, https://arxiv.org/abs/2104.01136;
    talking heads: https://arxiv.org/abs/2003.02436; rel_pos_vectors: MViT v2, CVPR 2022,
    https://arxiv.org/abs/2112.01526.
    """

    masked = True
    alone = True
    silent = frozenset({"talking_heads", "normalize"})
    mixes: ClassVar[bool] = True

    num_heads: Count | None = None
    """Heads; or say their width with `head_dim`."""
    head_dim: Count | None = None
    """Width of a head's queries; 32 if neither it nor `num_heads` is given. With both, the queries and keys in a single
    map are as wide as they say, the values what is left."""
    form: Literal["softmax", "relu_linear", "channels"] = "softmax"
    """How weights are made: softmax of the products; products of what relu leaves of queries and keys; or softmax of
    the products of channels, times a learnt factor for each head. `kind` says the same."""
    cosine: bool = False
    """Products of queries and keys of length 1, times a learnt factor for each head, 100 at most."""
    qk_norm: bool = False
    """LayerNorm of the queries and of the keys of each head."""
    bias: BiasParam = None
    """What is added to the products: `rel_pos_table`, {op: rel_pos_table, symmetric: true}, {op: rel_pos_mlp, hidden:
    512}, `rel_pos_vectors`, or none. The last one reads the queries: their products, without `scale`, with a learnt
    vector for each vertical and each horizontal distance, which all heads share (decomposed relative positions)."""
    order: Order = "by_role"
    """Channels of a map that holds several: all queries, then keys, then values; by_head: so for each head in turn.
    `layout` says the same."""
    scale: Ratio | None = None
    """Factor of the products; absent: 1 / sqrt(width of a head)."""
    eps: Eps = 1e-5
    """Added to the sum of the weights that relu_linear divides by."""
    talking_heads: bool | None = None
    """true: a linear layer over the heads mixes their products, the bias included, before the softmax, and another
    their weights behind it."""
    normalize: bool | None = None
    """With `form: channels`, false: queries and keys are as they are, and the products times `scale`; absent: of length
    1, and times a learnt factor for each head."""

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, data: dict[str, Any]) -> dict[str, Any]:
        """`kind` and `layout` say the same as `form` and `order`."""
        for other, name in _OTHER_NAMES.items():
            if other in data and name in data:
                raise OpError(f"{other} and {name} say the same", hint="keep one of them", param=other, code="value")
        return {_OTHER_NAMES.get(key, key): value for key, value in data.items()}

    @model_validator(mode="after")
    def _fits(self) -> Attend:
        softmax_only = {"cosine": self.cosine, "bias": self.bias is not None, "scale": self.scale is not None}
        softmax_only["talking_heads"] = bool(self.talking_heads)
        if self.form == "channels":
            softmax_only["qk_norm"] = self.qk_norm
            softmax_only["scale"] &= self.normalize is not False
        elif self.normalize is not None:
            raise OpError(f"{self.form} has no normalize", hint="form: channels has it", code="value")
        if self.form != "softmax" and (wrong := next((k for k, said in softmax_only.items() if said), None)):
            raise OpError(f"{self.form} has no {wrong}", hint="form: softmax has it", code="value")
        if self.cosine and self.scale is not None:
            raise OpError("cosine has no scale", hint="its factor is learnt", code="value")
        return self

    def tokens_are(self) -> TokenRule:
        return "all" if self.bias is None else "none"

    def check_masked(self) -> None:
        if self.form != "softmax" or self.talking_heads:
            what, param = ("talking heads", "talking_heads") if self.talking_heads else (self.form, "form")
            hint = "tiles without shift, or form: softmax with heads apart"
            raise OpError(f"{what} cannot keep the positions of rolled tiles apart", hint=hint, param=param)

    def heads(self, dim: int) -> int:
        """Number of heads of queries of width `dim`."""
        return self.num_heads or max(1, dim // (self.head_dim or DEFAULT_HEAD_DIM))

    def roles(self, shapes: tuple[Shape, ...]) -> Roles:
        """Queries, keys and values of the maps. Where the place does not suit, widths may be 0 or less."""
        if len(shapes) == 1:
            (whole,) = shapes
            both = self.num_heads and self.head_dim
            dim = self.num_heads * self.head_dim if self.num_heads and self.head_dim else whole.dim // 3
            q, v = whole._replace(dim=dim), whole._replace(dim=whole.dim - 2 * dim if both else dim)
            return Roles(q, q, v, self.heads(dim))
        q, k, v = shapes[0], shapes[1], shapes[-1]
        heads = self.heads(q.dim)
        if len(shapes) == 2:
            of_keys = k.dim // 2 if heads > 1 and k.dim // 2 == q.dim // heads else q.dim
            k, v = k._replace(dim=of_keys), k._replace(dim=k.dim - of_keys)
        return Roles(q, k, v, heads)

    def resolved(self, shapes: tuple[Shape, ...], dim: int | None) -> Attend:
        roles, said = self.roles(shapes), self.num_heads and self.head_dim
        own = self.head_dim if said and len(shapes) == 1 and 3 * roles.q.dim != shapes[0].dim else None
        scale = self.scale if self.scale != roles.head_dim**-0.5 else None
        order = self.order if len(shapes) < 3 and roles.num_heads > 1 else "by_role"
        eps = self.eps if self.form == "relu_linear" else Attend.model_fields["eps"].default
        return self.model_copy(
            update={
                "num_heads": roles.num_heads, "head_dim": own, "scale": scale, "order": order, "eps": eps,
                "talking_heads": self.talking_heads or None, "normalize": None if self.normalize else self.normalize,
            }
        )  # fmt: skip

    def check(self, shapes: tuple[Shape, ...], dim: int | None) -> None:
        if len(shapes) > 3:
            raise OpError(f"attend has {len(shapes)} maps", hint="queries, keys, values")
        if len(shapes) == 1 and not (self.num_heads and self.head_dim) and shapes[0].dim % 3:
            text = f"{shapes[0]} does not hold queries, keys and values of one width"
            raise OpError(text, hint="with num_heads and head_dim values have a width of their own", code="widths")
        q, k, v, heads = roles = self.roles(shapes)
        by = "head_dim" if self.num_heads is None else "num_heads"
        if self.num_heads is None and q.dim > (self.head_dim or DEFAULT_HEAD_DIM):
            divisible(q.dim, self.head_dim or DEFAULT_HEAD_DIM, "width of the queries", by, by)
        if q.dim > 0:
            divisible(q.dim, heads, "width of the queries", by, by)
        if self.num_heads and self.head_dim and q.dim != self.num_heads * self.head_dim:
            text = f"{self.num_heads} heads of {self.head_dim} are not the {q.dim} channels of the queries"
            raise OpError(text, hint="leave out one of the two", param="head_dim", code="widths")
        if k.dim != q.dim and not roles.is_shared:
            text = f"keys of {k} do not fit queries of {q}"
            raise OpError(text, hint=f"as wide as the queries, or as a head: {roles.head_dim}", code="widths")
        if self.form == "channels" and not q == k == v:
            text = f"channels of {listed((q, k, v))} cannot attend to each other"
            raise OpError(text, hint="give queries, keys and values one size and one width", code="widths")
        if k[:2] != v[:2]:
            raise OpError(f"keys and values of {listed((k, v))} differ in size", hint="make them of one map")
        if v.dim < 1:
            hint = "q, k and v are three maps; of two, the second holds the keys beside the values"
            raise OpError(f"{listed(shapes)} leave no channels for values", hint=hint, code="widths")
        if not roles.is_shared:
            divisible(v.dim, heads, "width of the values", "num_heads", by)
        if self.bias is not None:
            self.bias.check(q, k, heads)

    def out_shape(self, shapes: tuple[Shape, ...], dim: int | None) -> Shape:
        return self.roles(shapes).out

    def cost(self, shapes: tuple[Shape, ...], dim: int | None) -> Cost:
        roles = self.roles(shapes)
        length, keys, heads, d, d_v = roles.q.positions, roles.k.positions, roles.num_heads, *roles.widths
        is_scaled = self.cosine or (self.form == "channels" and self.normalize is not False)
        cost = Cost(params=4 * d * self.qk_norm + heads * is_scaled)
        if self.form == "channels":
            return cost + primitives.matmul(d, length, d, heads) + primitives.matmul(d, d, length, heads)
        if self.form == "relu_linear":
            over = 1 if roles.is_shared else heads  # keys and values are joined once where all heads share them
            cost += primitives.matmul(d, keys, d_v + 1, over)
            return cost + primitives.matmul(length, d, d_v + 1, heads)
        cost += primitives.matmul(length, d, keys, heads) + primitives.matmul(length, keys, d_v, heads)
        if self.talking_heads:
            mixing = primitives.linear(heads, heads, length * keys, on_map=False)
            cost = cost + mixing + mixing
        return cost + (self.bias.cost(roles.q, roles.k, heads) if self.bias is not None else Cost())

    def once(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        """Multiply-adds of `cost` that a call makes once, for however many maps lie in the batch: where attention
        stands in tiles they do not grow with their number."""
        roles = self.roles(shapes)
        return self.bias.once(roles.q, roles.k, roles.num_heads) if self.bias is not None else 0

    def mask_elements(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        """Elements that a mask takes for one map while attention runs: see `AttendModule.forward`."""
        roles = self.roles(shapes)
        if self.bias is not None and self.bias.reads_queries:
            return 0  # it lies in the bias
        return roles.q.positions * roles.k.positions * (roles.num_heads if self.bias is not None else 1)

    def workspace(self, shapes: tuple[Shape, ...], dim: int | None) -> int:
        if self.talking_heads or (self.bias is not None and self.bias.reads_queries):
            return super().workspace(shapes, dim)
        roles = self.roles(shapes)
        q, k = roles.q.elements, roles.k.elements
        if self.form == "relu_linear":
            return (q + k) * self.qk_norm + linear_elements(roles)
        if self.form == "channels":
            return channel_elements(roles, self.normalize is not False)
        normed = q + k if self.qk_norm or self.cosine else 0
        attention = fused_elements(roles) if roles.head_dim == roles.v_head_dim else product_elements(roles)
        return max(normed + attention, 2 * q * self.cosine + (q + k) * self.qk_norm)

    def build(self, shapes: tuple[Shape, ...], dim: int | None) -> nn.Module:
        roles = self.roles(shapes)
        heads, d, d_v = roles.num_heads, *roles.widths
        splits = Splits(len(shapes), heads, 1 if roles.is_shared else heads, (d, d, d_v), self.order)
        if self.form == "relu_linear":
            return LinearAttendModule(splits, self.qk_norm, self.eps)
        if self.form == "channels":
            return ChannelAttendModule(splits) if self.normalize is not False else ChannelProducts(splits, self.scale)
        bias = self.bias.build(roles.q, roles.k, heads) if self.bias is not None else None
        grows, reads = (self.bias.grows(), self.bias.reads_queries) if self.bias is not None else (False, False)
        made = TalkingAttendModule if self.talking_heads else AttendModule
        sizes = (roles.q[:2], roles.k[:2]) if bias is not None else None
        return made(splits, self.qk_norm, self.cosine, self.scale, bias, sizes, grows, reads)

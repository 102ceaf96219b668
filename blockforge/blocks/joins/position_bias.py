"""What `attend` adds to its logits for relative positions: each says its costs and makes a module.

Shapes: B batch, N heads, L queries, S keys, D channels of a head; a module gives (1, N, L, S), or (B, N, L, S).

These are parameters of `attend`, and no blocks that a spec may name elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError
from torch import nn

from blockforge.blocks import primitives
from blockforge.blocks.base import Cost, Op, Shape
from blockforge.blocks.fields import Width
from blockforge.blocks.rel_pos import RelativePositionBias, RelativePositionMLP, table_rows
from blockforge.blocks.rel_pos_vectors import RelativePositionVectors, vectors_along
from blockforge.errors import OpError


class PositionBias(Op[Shape, Shape, int]):
    """A bias of logits. Its place: the maps of the queries and of the keys, and the number of heads. Module:
    `forward(tile=None)`, or `forward(q_BNLD, tile=None)` where it reads the queries; with `tile` that of a map of
    another height and width, see `blocks.rel_pos`."""

    kind = "join"
    reads_queries: ClassVar[bool] = False
    """Whether it is made of the queries, for each image; else it is one for all of them."""

    def check(self, queries: Shape, keys: Shape, num_heads: int) -> None:
        if queries.height > keys.height or queries.width > keys.width:
            text = f"there are more queries than keys: of {queries} and {keys}"
            raise OpError(text, hint="a bias of positions wants a key for each query", param="bias")

    def out_shape(self, queries: Shape, keys: Shape, num_heads: int) -> Shape:
        return Shape(queries.positions, keys.positions, num_heads)

    def workspace(self, queries: Shape, keys: Shape, num_heads: int) -> int:
        """Nothing for an image where it is made once for all of them; else it is counted with the attention."""
        return 0

    def once(self, queries: Shape, keys: Shape, num_heads: int) -> int:
        return 0 if self.reads_queries else self.cost(queries, keys, num_heads).macs

    @abstractmethod
    def grows(self) -> bool:
        """Whether it serves maps larger than those that it is built for."""


class RelPosTable(PositionBias):
    """A learnt number for each head and relative position, see `RelativePositionBias`."""

    op = "rel_pos_table"
    symmetric: bool = False
    """One number for a distance to either side, as in LeViT."""

    def grows(self) -> bool:
        return False

    def cost(self, queries: Shape, keys: Shape, num_heads: int) -> Cost:
        return Cost(params=table_rows(keys[:2], self.symmetric) * num_heads)

    def build(self, queries: Shape, keys: Shape, num_heads: int) -> nn.Module:
        return RelativePositionBias(keys[:2], num_heads, queries[:2], self.symmetric)


class RelPosMLP(PositionBias):
    """A network of the relative positions, see `RelativePositionMLP`."""

    op = "rel_pos_mlp"
    hidden: Width = 512
    """Width inside the network."""

    def grows(self) -> bool:
        return True

    def cost(self, queries: Shape, keys: Shape, num_heads: int) -> Cost:
        rows = table_rows(keys[:2])
        first = primitives.linear(2, self.hidden, rows, on_map=False)
        return first + primitives.linear(self.hidden, num_heads, rows, bias=False, on_map=False)

    def build(self, queries: Shape, keys: Shape, num_heads: int) -> nn.Module:
        return RelativePositionMLP(keys[:2], num_heads, self.hidden, queries[:2])


class RelPosVectors(PositionBias):
    """The query's products with a learnt vector for the vertical and one for the horizontal distance, see
    `RelativePositionVectors`."""

    op = "rel_pos_vectors"
    reads_queries = True

    def check(self, queries: Shape, keys: Shape, num_heads: int) -> None:
        """There may be more queries than keys."""

    def grows(self) -> bool:
        return False

    def cost(self, queries: Shape, keys: Shape, num_heads: int) -> Cost:
        head_dim = queries.dim // num_heads
        products = primitives.matmul(queries.positions, head_dim, keys.height + keys.width, num_heads)
        return products + Cost(params=sum(vectors_along(queries[:2], keys[:2])) * head_dim)

    def build(self, queries: Shape, keys: Shape, num_heads: int) -> nn.Module:
        return RelativePositionVectors(keys[:2], queries.dim // num_heads, queries[:2])


_BIASES: dict[str, type[PositionBias]] = {cls.op: cls for cls in (RelPosTable, RelPosMLP, RelPosVectors)}


def _bias(value: Any) -> Any:
    """A bias by its name, as `{op: ..., ...}`, or `none`."""
    if value is None or isinstance(value, PositionBias) or value == "none":
        return None if value == "none" else value
    said = {"op": value} if isinstance(value, str) else value
    name = said.get("op") if isinstance(said, Mapping) else None
    if not isinstance(name, str) or name not in _BIASES:
        raise PydanticCustomError("bias", "a bias is {names}, or none", {"names": ", ".join(_BIASES)})
    try:
        return _BIASES[name].model_validate({k: v for k, v in said.items() if k != "op"})
    except ValidationError as e:
        wrong = e.errors()[0]
        raise OpError(f"{name}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}", code="value") from None


BiasParam = Annotated[PositionBias | None, BeforeValidator(_bias)]
"""A bias for relative positions, or none."""

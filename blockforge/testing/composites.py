"""A Hypothesis strategy for blocks made of blocks: composites in each other, out of the registry's parts and blocks.

What is drawn mostly fits its place. Each op is drawn for the map that it will read, as far as that is known: its
width is followed exactly, its size by whether it is still the block's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Shape
from blockforge.testing.examples import accepts
from blockforge.testing.strategies import parametrised, written

SIDES = ((10, 14), (5, 7), (4, 4), (1, 1))
"""Maps on which a block must be able to stand to be drawn."""


@st.composite
def composed_ops(draw: st.DrawFn, depth: int = 3) -> Any:
    """An op of any form that keeps its map."""
    form = draw(st.sampled_from(_FORMS if depth else _FORMS[:2]))
    return draw(form(depth))


def _block(depth: int) -> st.SearchStrategy[Any]:
    """A registered block that keeps its map, with random parameters."""
    kinds = st.sampled_from(["part", "act", "norm", "mixer", "ffn"])
    return kinds.flatmap(lambda kind: st.sampled_from(_keeping(kind)).flatmap(parametrised).filter(_keeps)).map(written)


@st.composite
def _linear(draw: st.DrawFn, depth: int) -> Any:
    return draw(
        st.sampled_from(
            [
                {"op": "linear", "dim": "$in"},
                {"op": "conv", "dim": "$in", "kernel_size": 3},
                {"op": "conv", "dim": "$in", "kernel_size": [1, 3], "groups": 2},
                {"op": "dwconv", "kernel_size": "$(5 if layer == 0 else 3)"},
                {"op": "wide", "act": "relu"},
                {"op": "wide", "ratio": "$(1 + stage)", "act": {"op": "mix", "of": "gelu"}},
                {"op": "mix", "of": ["layer_norm", "gelu"]},
                {"op": "gelu", "when": "$(in > 16)"},
            ]
        )
    )


DEFINE = {
    "wide": {
        "params": {"ratio": 2, "act": "gelu"},
        "body": [{"op": "linear", "dim": "$(ratio * in)"}, "$act", {"op": "linear", "dim": "$out"}],
    },
    "mix": {"params": {"of": "identity"}, "body": {"op": "parallel", "of": ["$of", {"op": "dwconv"}]}},
}
"""The definitions that drawn ops may call."""


def _members(depth: int, most: int = 3, least: int = 1) -> st.SearchStrategy[list[Any]]:
    return st.lists(composed_ops(depth - 1), min_size=least, max_size=most)


@st.composite
def _chain(draw: st.DrawFn, depth: int) -> Any:
    ops = draw(_members(depth))
    if draw(st.booleans()):
        wide = draw(st.sampled_from(["$(2 * in)", "$(in // 2)", "$(near(in * 1.5, 8))"]))
        last = {"op": "linear", "dim": "$in"}
        ops = [{"op": "linear", "dim": wide}, *draw(st.lists(st.sampled_from(_ANYWHERE), max_size=2)), last, *ops]
    named = {"op": "chain", "of": {f"m{i}": op for i, op in enumerate(ops)}}
    return draw(st.sampled_from([ops, named]))


_ANYWHERE = ["gelu", "relu", "batch_norm", "layer_norm", "silu", "grn", {"op": "scale", "init": 0.5}, "hard_swish"]


@st.composite
def _parallel(draw: st.DrawFn, depth: int) -> Any:
    join = draw(st.sampled_from(["sum", "mul", "mean", "max", "concat", {"op": "sum", "weights": [1, -1]}]))
    least = 2 if isinstance(join, dict) else 1
    of = draw(_members(depth, 2 if least == 2 else 3, least))
    op: dict[str, Any] = {"op": "parallel", "join": join, "of": of}
    if draw(st.booleans()) and least == 1 and join in ("sum", "mul"):
        of.append(["global_pool", {"op": "linear", "dim": "$in"}, "sigmoid"])
    return [op, {"op": "linear", "dim": "$in"}] if join == "concat" else op


@st.composite
def _attend(draw: st.DrawFn, depth: int) -> Any:
    query = {"op": "linear", "dim": "$in"}
    of = [query, [{"op": "avg_pool", "kernel_size": 2, "stride": 2}, {"op": "linear", "dim": "$(2 * in)"}]]
    attend: dict[str, Any] = {"op": "attend", "num_heads": 2}
    attend |= draw(st.sampled_from([{}, {"bias": "rel_pos_vectors"}, {"bias": "rel_pos_vectors", "cosine": True}]))
    small = {"op": "parallel", "of": of, "join": attend}
    beside = [{"op": "linear", "dim": "$(3 * in)"}, attend]
    return draw(st.sampled_from([small, beside]))


@st.composite
def _split(draw: st.DrawFn, depth: int) -> Any:
    of = draw(_members(depth, 2, 2))
    how: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"of": of},
                {"sizes": ["$(in // 4)", "$(in - in // 4)"], "of": [of[0], "identity"]},
                {"count": 2, "of": of[0], "share": draw(st.booleans())},
                {"count": 4, "of": [{"op": "dwconv", "bias": False}, "layer_norm"], "share": True},
            ]
        )
    )
    return {"op": "split", **how}


@st.composite
def _residual(draw: st.DrawFn, depth: int) -> Any:
    return {
        "op": "residual",
        "of": draw(composed_ops(depth - 1)),
        "norm": draw(st.sampled_from(["none", "layer_norm", "batch_norm"])),
        "scale": draw(st.sampled_from(["none", 0.5])),
        "skip": draw(st.sampled_from([True, False, "$(in > 16)", {"op": "linear", "dim": "$in"}])),
        "post_act": draw(st.sampled_from(["none", "relu", "gelu"])),
    }


@st.composite
def _tiles(draw: st.DrawFn, depth: int) -> Any:
    how: dict[str, Any] = draw(
        st.sampled_from([{"size": 4}, {"size": [3, 5]}, {"count": 3}, {"size": 7}, {"count": [1, 2]}])
    )
    more: dict[str, Any] = draw(st.sampled_from([{}, {"shift": 1}, {"shift": "half"}, {"order": "grid"}]))
    return {"op": "tiles", "of": draw(composed_ops(depth - 1)), **how, **more}


@st.composite
def _across(draw: st.DrawFn, depth: int) -> Any:
    axis = draw(st.sampled_from(["positions", "rows", "columns"]))
    of = [{"op": "linear", "dim": draw(st.sampled_from([6, "$in"]))}, draw(st.sampled_from(["gelu", "layer_norm"]))]
    return {"op": "across", "axis": axis, "of": [*of, {"op": "linear", "dim": "$in"}]}


@st.composite
def _repeat(draw: st.DrawFn, depth: int) -> Any:
    op = {"op": "repeat", "times": draw(st.integers(1, 3)), "of": draw(composed_ops(depth - 1))}
    return op | {"share": True} if draw(st.booleans()) else op


@st.composite
def _graph(draw: st.DrawFn, depth: int) -> Any:
    a, b, c = (draw(composed_ops(depth - 1)) for _ in range(3))
    join = draw(st.sampled_from(["sum", "mul", "max"]))
    edge = draw(st.sampled_from(["a", {"from": "a", "op": c}]))
    members = {"a": {"from": "input", "op": a}, "b": {"from": ["input", edge], "join": join, "op": b}}
    return {"op": "graph", "of": {**members, "all": {"from": ["a", "b"]}}}


@st.composite
def _tokens(draw: st.DrawFn, depth: int) -> Any:
    """Tokens that ride beside the map for some ops, and perhaps go a way of their own."""
    attention = [{"op": "linear", "dim": "$(3 * in)"}, {"op": "attend", "num_heads": 2}]
    query = [{"op": "take_token", "index": 0}, {"op": "linear", "dim": "$in"}]
    asked = {"op": "parallel", "join": {"op": "attend", "num_heads": 2}, "of": {"q": query, "kv": _BOTH}}
    apart = {
        "op": "parallel",
        "join": "as_tokens",
        "of": {
            "tokens": draw(st.sampled_from(["take_token", asked, ["take_token", {"op": "linear", "dim": "$in"}]])),
            "map": ["drop_tokens", draw(composed_ops(depth - 1))],
        },
    }
    beside = st.sampled_from([attention, apart, {"op": "residual", "of": apart, "norm": "layer_norm"}, *_ANYWHERE])
    if draw(st.booleans()):
        beside = st.sampled_from([attention, *_ANYWHERE])
    last = draw(st.sampled_from(["drop_tokens", {"op": "parallel", "of": ["drop_tokens", asked]}]))
    embedded: list[Any] = draw(st.sampled_from([[], [{"op": "pos_embed", "tokens": True}], ["pos_embed"]]))
    among: list[Any] = draw(st.lists(beside, max_size=2))
    return [{"op": "add_tokens", "count": 2}, *embedded, *among, last]


_BOTH = {"op": "linear", "dim": "$(2 * in)"}
"""Keys beside values."""

_FORMS: list[Callable[[int], st.SearchStrategy[Any]]] = [
    _block, _linear, _chain, _parallel, _split, _residual, _tiles, _repeat, _graph, _across, _attend, _tokens,
]  # fmt: skip


def _keeping(kind: Any) -> list[type[AnyOp]]:
    """The blocks of a kind that keep any map; composites are drawn otherwise."""
    classes = registry.blocks(kind).values()
    return [cls for cls in classes if not hasattr(cls, "expand") and _keeps(cls())]


def _keeps(op: AnyOp) -> bool:
    for dim in (8, 16, 32):
        for side in SIDES:
            shape = Shape(*side, dim)
            place = (shape, None) if op.kind == "part" else (shape,)
            if not accepts(op, *place) or (op.kind == "part" and op.out_shape(*place) != shape):
                return False
    return True

"""Hypothesis strategies, driven by the registry: blocks with random parameters, and whole small specs.

A block that registers itself takes part at once. Specs are valid by construction as far as blocks tell
(`check`); where shapes cannot meet, draw again with `hypothesis.assume`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Kind, Placed, Shape
from blockforge.testing.examples import accepts, example_places, field_values, variants


@st.composite
def ops(draw: st.DrawFn, *kinds: Kind) -> AnyOp:
    """A registered block of these kinds (or of any), its parameters at their defaults or at small other values."""
    cls = draw(st.sampled_from(list(registry.blocks(*kinds).values())))
    return draw(parametrised(cls))


@st.composite
def parametrised(draw: st.DrawFn, cls: type[AnyOp]) -> AnyOp:
    """A block with random parameters; combinations that it refuses fall back to its defaults."""
    params: dict[str, Any] = {}
    for name in cls.model_fields:
        if values := field_values(cls, name):
            params |= draw(st.sampled_from([{}, *({name: v} for v in values)]))
    try:
        return cls.model_validate(params)
    except ValidationError:
        return cls()


@st.composite
def placed_ops(draw: st.DrawFn, *kinds: Kind) -> tuple[AnyOp, tuple[Any, ...]]:
    """A block and an example place that it accepts."""
    op = draw(ops(*kinds).filter(lambda op: any(accepts(op, *p) for p in example_places(op.kind))))
    return op, draw(st.sampled_from([p for p in example_places(op.kind) if accepts(op, *p)]))


@st.composite
def specs(draw: st.DrawFn, *, without_identity: bool = False) -> dict[str, Any]:
    """A small spec of one to three stages: random blocks, patterns, connections, windows, skips and norms. Where its
    stem puts tokens beside the map, all blocks can stand there.

    Args:
        without_identity: some of its branches have no identity path.
    """
    size = [draw(st.integers(24, 72)), draw(st.integers(24, 72))]
    dims = [draw(st.sampled_from([8, 12, 24]))]
    dims += [dims[0] * 2**i for i in range(1, draw(st.integers(1, 3)))]
    stem = draw(ops("stem").filter(lambda op: accepts(op, Shape(48, 48, 3), dims[0])))
    on = Shape(12, 12, dims[0], Placed(stem, (Shape(48, 48, 3), dims[0])).out_shape().extra)
    blocks = {
        name: draw(st.lists(_branches(dims, on, without_identity), min_size=1, max_size=3)) for name in ("one", "two")
    }
    mixing = [n for n, branches in blocks.items() if any(b["op"] in registry.blocks("mixer") for b in branches)]
    downsample = written(draw(_downsamples(on)))
    whole: dict[str, Any] = {
        "blockforge": 1,
        "name": "drawn",
        "input": {"size": size, "channels": draw(st.sampled_from([1, 3]))},
        "num_classes": draw(st.sampled_from([0, 5])),
        "drop_path": draw(st.sampled_from([0.0, 0.3, {"constant": 0.1}])),
        "blocks": blocks,
        "stem": written(stem),
        "downsample": downsample,
        "stages": [draw(_stages(dim, mixing, on)) for dim in dims],
        **draw(_outputs(on._replace(dim=dims[-1]))),
    }
    if draw(st.booleans()):
        whole["stage_norm"] = written(draw(_fitting("norm", dims, on)))
    if len(dims) > 2 and draw(st.booleans()):
        whole["skips"] = [{"from": 1, "to": [2], "op": downsample}]
    return whole


@st.composite
def _outputs(draw: st.DrawFn, on: Shape) -> dict[str, Any]:
    """A head, which may end in a map, or several by name."""
    pooled = ops("head").filter(lambda op: accepts(op, on, 5)).map(written)
    head = pooled if on.extra else st.one_of(pooled, pooled, _map_heads())
    several = st.dictionaries(st.sampled_from(["main", "aux", "other"]), head, min_size=1)
    return draw(st.one_of(*[st.fixed_dictionaries({"head": head})] * 2, st.fixed_dictionaries({"heads": several})))


@st.composite
def _map_heads(draw: st.DrawFn) -> list[Any]:
    """Ops in a row that keep positions."""
    parts: list[Any] = [{"op": "resize", "scale": 2}, {"op": "conv", "dim": 6, "kernel_size": 3}, "relu", "layer_norm"]
    return [*draw(st.lists(st.sampled_from(parts), max_size=3)), "logits"]


@st.composite
def _stages(draw: st.DrawFn, dim: int, mixing: list[str], on: Shape) -> dict[str, Any]:
    """A stage on such a map; connections only where every layer has a mixer to feed."""
    stage: dict[str, Any] = {"dim": dim, "depth": draw(st.integers(1, 4))}
    stage["layers"] = draw(st.sampled_from(["one", "(one two)*", "one* two*"]))
    names = {"one"} if stage["layers"] == "one" else {"one", "two"}
    if draw(st.booleans()) and not on.extra:
        stage["window"] = draw(st.sampled_from([3, 5, 7]))
    if names <= set(mixing) and draw(st.booleans()):
        rules: list[dict[str, Any]] = [
            {
                "rule": "sparx",
                "stride": draw(st.integers(1, 2)),
                "window": draw(st.sampled_from([1, 2, "all"])),
            },
            {"rule": "dense"},
        ]
        if stage["depth"] > 2:
            rules.append({"rule": "edges", "edges": [[-1, 1], [0, 2]]})
        aggregate = draw(ops("aggregator").filter(lambda op: accepts(op, on._replace(dim=dim), (dim,), dim)))
        stage["connect"] = {**draw(st.sampled_from(rules)), "aggregate": written(aggregate)}
    return stage


@st.composite
def _branches(draw: st.DrawFn, dims: list[int], on: Shape, without_identity: bool) -> dict[str, Any]:
    """One residual branch that can stand at every width."""
    branch = written(draw(_fitting(draw(st.sampled_from(["mixer", "ffn"])), dims, on)))
    branch["norm"] = draw(st.one_of(st.just("none"), _fitting("norm", dims, on).map(written)))
    branch["scale"] = draw(st.sampled_from(["none", 0.5, {"skip": 1.0}, {"branch": 0.1, "skip": 0.9}]))
    branch["drop_path"] = draw(st.booleans())
    scales_skip = isinstance(branch["scale"], dict)  # the identity path, which is then there
    if without_identity and not scales_skip and branch["op"] != "identity":
        branch["skip"] = draw(st.sampled_from([True, True, False]))
    return branch


def _fitting(kind: Kind, dims: list[int], on: Shape) -> st.SearchStrategy[AnyOp]:
    """Blocks that keep their map and accept it at all these widths, beside as many tokens as `on` has."""
    return ops(kind).filter(lambda op: all(accepts(op, Shape(7, 5, dim, on.extra)) for dim in dims))


def _downsamples(on: Shape) -> st.SearchStrategy[AnyOp]:
    """Downsamples that accept such a map. Few work beside tokens: these are not drawn at random."""
    place = (on._replace(dim=12), 24)
    if not on.extra:
        return ops("downsample").filter(lambda op: accepts(op, *place))
    all_of_them = [op for cls in registry.blocks("downsample").values() for op in variants(cls)]
    return st.sampled_from([op for op in all_of_them if accepts(op, *place)])


def written(op: AnyOp) -> dict[str, Any]:
    """A block as a spec writes it, without what is left at its default."""
    cls = type(op)
    defaults = cls().parameters_dict()  # which may leave out what is given here
    changed = {k: v for k, v in op.parameters_dict().items() if k not in defaults or v != defaults[k]}
    return {
        "op": op.op,
        **{k: "none" if v is None and _reads_none(cls, k) else v for k, v in changed.items()},
    }


def _reads_none(cls: type[AnyOp], name: str) -> bool:
    """Whether a parameter may be left out by the word `none`, as norms may."""
    try:
        cls.model_validate({name: "none"})
    except ValidationError:
        return False
    return True

"""CrossViT's layout in timm: two streams, small patches first, whose tokens cross over three times."""

from __future__ import annotations

from collections.abc import Iterator

from blockforge.weights.family import Family, register
from blockforge.weights.layouts.tensor_names import VIT_LAYER, by_table

_CROSS = {
    "norm": "norm1",
    "parallel.q.linear": "attn.wq",
    "parallel.k": "attn.wk",
    "parallel.v": "attn.wv",
    "linear": "attn.proj",
}
_GROUPS, _STREAMS = 3, 2


def _rows() -> Iterator[tuple[str, str]]:
    for i in range(_STREAMS):
        yield f"stages.{i}.layers.0.conv.op.conv", f"patch_embed.{i}.proj"
        yield f"stages.{i}.layers.1.add_tokens.op.add_tokens.tokens", f"cls_token_{i}"
        yield f"stages.{i}.layers.2.pos_embed.op.pos_embed.pos_embed", f"pos_embed_{i}"
        yield f"stages.{_STREAMS + 3 * _STREAMS * _GROUPS}.from_{i}.ln", f"norm.{i}"
        yield f"head.{('small', 'large')[i]}", f"head.{i}"
        for group in range(_GROUPS):
            yield from _group(group, i)


def _group(group: int, i: int) -> Iterator[tuple[str, str]]:
    """The stages of a stream: its layers, its token beside the other's map, and back."""
    first, official = _STREAMS + 3 * _STREAMS * group + i, f"blocks.{group}"
    layers, crossing, back = (f"stages.{first + n * _STREAMS}" for n in range(3))
    yield from ((f"{layers}.layers.{{l}}.{k}", f"{official}.blocks.{i}.{{l}}.{v}") for k, v in VIT_LAYER.items())
    yield from ((f"{crossing}.layers.0.cross.op.{k}", f"{official}.fusion.{i}.{v}") for k, v in _CROSS.items())
    for ours, name in ((f"{crossing}.from_0.to_op", "projs"), (f"{back}.from_0", "revert_projs")):
        yield f"{ours}.ln", f"{official}.{name}.{i}.0"
        yield f"{ours}.linear", f"{official}.{name}.{i}.2"


_MARKS = {"cls_token_0", "cls_token_1", "blocks.0.fusion.0.attn.wq.weight"}

CROSSVIT = register(Family("crossvit", lambda keys: keys >= _MARKS, by_table(dict(_rows()))))

"""Tokens that ride beside the map: what they cost, who takes part, who refuses them, and where they end."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Placed, Shape
from blockforge.errors import OpError
from blockforge.testing import check_spec

PATCHES = {"op": "conv", "dim": "$out", "kernel_size": 4, "stride": 4}
VIT: dict[str, Any] = {
    "blockforge": 1,
    "name": "small_vit",
    "input": {"size": [24, 32]},
    "num_classes": 5,
    "defaults": {"norm": "layer_norm"},
    "blocks": {"b": [{"op": "attention", "num_heads": 2}, "mlp"]},
    "stem": [PATCHES, {"op": "add_tokens", "count": 2}, {"op": "pos_embed", "tokens": True}],
    "stages": [{"dim": 24, "depth": 1, "layers": "b"}, {"dim": 24, "depth": 1, "layers": "b"}],
    "head": ["layer_norm", {"op": "take_token", "index": 0}, "logits"],
}
ATTEND = {"op": "attend", "num_heads": 2}
CLASS_ATTENTION = [
    {"op": "parallel", "join": ATTEND, "of": {"q": ["take_token", "linear"], "k": "linear", "v": "linear"}},
    "linear",
]
"""One query, the token; keys and values of all positions."""


def with_stem(*ops: Any, **more: Any) -> dict[str, Any]:
    return {**VIT, "stem": [PATCHES, *ops], **more}


def errors(tree: dict[str, Any]) -> str:
    with pytest.raises(bf.SpecError) as caught:
        bf.compile(tree)
    return str(caught.value)


def test_a_shape_is_three_numbers_unless_tokens_stand_beside_the_map() -> None:
    shape, plain = Shape(6, 8, 24, extra=2), Shape(6, 8, 24)
    height, width, dim = plain
    assert (height, width, dim) == plain == (6, 8, 24)
    assert (plain.extra, plain.row, str(plain), plain.sides) == (0, plain, "24x6x8", "6x8")
    assert (shape.extra, shape.positions, shape.elements) == (2, 50, 1200)
    assert (shape.row, str(shape), shape.sides) == (Shape(1, 50, 24), "24x6x8+2", "6x8+2")
    assert shape != plain
    assert shape._replace(dim=3, extra=0) == Shape(6, 8, 3)
    for each in (shape, plain):
        assert pickle.loads(pickle.dumps(each)) == each == eval(repr(each))


def test_a_vision_transformer_of_parts_is_what_its_graph_says() -> None:
    model = check_spec(VIT).eval()
    assert [str(s) for s in model.arch.stage_shapes()] == ["24x6x8+2"] * 2
    assert model.feature_info.reduction() == [4, 4]
    x = torch.randn(2, 3, 24, 32)
    with torch.no_grad():
        row = model.forward_features(x)
        assert row.shape == (2, 24, 1, 50)
        last, pairs = model.forward_intermediates(x, return_prefix_tokens=True)
        (_, (a_map, tokens)), plain = pairs, model.forward_intermediates(x, 1, intermediates_only=True)
    assert a_map.shape == (2, 24, 6, 8)
    assert torch.equal(a_map, plain[0])
    assert torch.equal(torch.cat([tokens, a_map.flatten(2).mT], 1), row[:, :, 0].mT)
    assert torch.equal(last, row)


def test_it_computes_what_the_stem_of_vision_transformers_begins() -> None:
    """Written in parts, or with `vit_stem` and a head that pools the token: equal weights, equal results and costs."""
    change = {"stages.0.depth": 2, "stages.0.dim": 24, "stages.0.let.num_heads": 2, "num_classes": 5}
    python = bf.build("deit_s", {**change, "input.size": 64}).double().eval()
    parts = bf.build(
        "vit_small_patch16_224",
        {"stages.0.depth": 2, "stages.0.dim": 24, "blocks.b.0.num_heads": 2, "num_classes": 5, "input.size": 64},
    ).double().eval()  # fmt: skip
    assert (parts.arch.params, parts.arch.macs) == (python.arch.params, python.arch.macs)
    names = {"stem.class_token": "stem.add_tokens.tokens", "stem.pos_embed": "stem.pos_embed.pos_embed"}
    ours = parts.state_dict()
    for key, value in python.state_dict().items():
        key = names.get(key, key.replace("stem.proj", "stem.conv").replace("head.fc", "head.logits"))
        key = key.replace("head.pooled_norm", "head.ln")
        ours[key] = torch.randn(ours[key].shape, dtype=torch.double)
        value.copy_(ours[key].reshape(value.shape))
    parts.load_state_dict(ours)
    x = torch.randn(2, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(parts(x), python(x))


def test_a_class_token_may_ask_alone() -> None:
    """Class attention: the map goes past it, the token through it, and both come together again."""
    apart = {"op": "parallel", "join": "as_tokens", "of": {"token": CLASS_ATTENTION, "map": "drop_tokens"}}
    tree = {**VIT, "blocks": {"b": [apart, {"op": "mlp"}]}, "stem": [PATCHES, "add_tokens", "pos_embed"]}
    model = check_spec(tree).eval()
    layer: Any = model.get_submodule("stages.0.layers.0")
    x = torch.randn(2, 1, 49, 24)
    with torch.no_grad():
        y = layer.parallel(x)
        op, normed = layer.parallel.op, layer.parallel.norm(x)
        torch.testing.assert_close(y[:, :, 1:], (x + normed)[:, :, 1:])
        chain = op.token
        q, k, v = (
            module(t).unflatten(-1, (2, 12)).squeeze(1).transpose(1, 2)
            for module, t in ((chain.parallel.q.linear, normed[:, :, :1]), (chain.parallel.k, normed),
                              (chain.parallel.v, normed))
        )  # fmt: skip
        asked = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        torch.testing.assert_close(y[:, 0, :1], x[:, 0, :1] + chain.linear(asked))


@pytest.mark.parametrize("op", ["dwconv", "avg_pool", "global_pool", {"op": "conv", "kernel_size": 3}, "sparse_mlp"])
def test_what_works_on_maps_names_both_ways_out(op: Any) -> None:
    name = op if isinstance(op, str) else op["op"]
    text = errors({**VIT, "blocks": {"b": [{"op": [op]}]}})
    assert text.count("error[") == 1
    assert f"error[tokens]: '{name}' works on a map, and 24x6x8+2 has 2 extra tokens beside it" in text
    assert "in 1 more place" in text
    assert "drop_tokens or take_token before it; or both ways, {op: parallel, join: as_tokens, of: [" in text


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ({"op": "tiles", "of": "linear"}, "'tiles' works on a map"),
        ({"op": "across", "of": "linear"}, "'across' works on a map"),
        ({"op": "attention", "window": 3}, "'attention' works on a map"),
        ({"op": "attention", "rel_pos_bias": True}, "'attention' works on a map"),
        ([{"op": "linear", "dim": 72}, {**ATTEND, "bias": "rel_pos_table"}], "'attend' works on a map"),
        ([{"op": "take_token", "index": 2}], r"index 2 is behind the 2 tokens of 24x6x8+2"),
        (["drop_tokens", "drop_tokens"], "there are no tokens beside 24x6x8"),
        (["drop_tokens", "take_token"], "there are no tokens beside 24x6x8"),
        ({"op": "parallel", "of": ["linear", "drop_tokens"]}, "24x6x8+2 and 24x6x8 differ"),
        ({"op": "parallel", "of": ["identity", "identity"], "join": "as_tokens"}, "there are tokens beside 24x6x8+2"),
        ({"op": "parallel", "of": ["drop_tokens"] * 3, "join": "as_tokens"}, "as_tokens has 3 maps"),
        (["drop_tokens", "dwconv"], "the op gives 24x6x8, the identity path 24x6x8+2"),
    ],
)
def test_mistakes_are_told(op: Any, said: str) -> None:
    text = errors({**VIT, "blocks": {"b": [{"op": op}]}})
    assert said in text
    assert text.count("error[") == 1


def test_windows_have_no_place_for_tokens() -> None:
    tree = {**VIT, "stages": [{**VIT["stages"][0], "window": 3}]}
    assert "error[tokens]: 'window' works on a map, and 24x6x8+2 has 2 extra tokens beside it" in errors(tree)


def test_layers_that_are_connected_keep_their_tokens() -> None:
    connect = {"rule": "edges", "edges": [[-1, 1]], "aggregate": "sum"}
    stages = [{"dim": 24, "layers": ["add_tokens", "b", "b"], "connect": connect}]
    text = errors({**VIT, "stem": PATCHES, "stages": stages})
    assert "error[sizes]: a source of 24x6x8 does not meet the layer's input of 24x6x8+1" in text


def test_layers_may_put_tokens_there_and_take_them_away() -> None:
    stages = [
        {"dim": 24, "layers": [{"op": "add_tokens", "count": 3}, "b"]},
        {"dim": 24, "layers": ["b", "drop_tokens", "dwconv"]},
    ]
    tree = {**VIT, "stem": PATCHES, "stages": stages, "head": ["global_pool", "logits"]}
    model = check_spec(tree)
    assert [str(s) for s in model.arch.stage_shapes()] == ["24x6x8+3", "24x6x8"]
    with torch.no_grad():
        _, ((_, tokens), (_, none)) = model.eval().forward_intermediates(
            torch.randn(2, 3, 24, 32), return_prefix_tokens=True
        )
    assert (tokens.shape, none.shape) == ((2, 3, 24), (2, 0, 24))


def test_tokens_beside_tokens_stand_behind_them() -> None:
    tree = with_stem("add_tokens", {"op": "add_tokens", "count": 2})
    model = check_spec(tree).eval()
    with torch.no_grad():
        row = model.stem(torch.randn(1, 24, 32, 3))
    first, others = model.stem.add_tokens.tokens, model.stem.add_tokens_2.tokens
    assert torch.equal(row[0, 0, :3], torch.cat([first, others]))
    assert str(model.arch.stage_shapes()[0]) == "24x6x8+3"


def test_positions_without_tokens_leave_these_alone() -> None:
    model = check_spec(with_stem({"op": "add_tokens", "count": 2}, "pos_embed")).eval()
    assert model.stem.pos_embed.pos_embed.shape == (48, 24)
    with torch.no_grad():
        row = model.stem(torch.randn(1, 24, 32, 3))
    assert torch.equal(row[0, 0, :2], model.stem.add_tokens.tokens)


def test_a_block_that_says_nothing_refuses_tokens() -> None:
    assert {"dwconv", "ss2d", "focal_modulation"} <= {
        n for n, cls in registry.blocks().items() if cls.token_rule == "none"
    }
    with pytest.raises(OpError, match="'ss2d' works on a map"):
        Placed(registry.make("ss2d", {}), (Shape(6, 8, 24, extra=1),)).told  # noqa: B018


def test_the_hash_knows_what_becomes_of_the_tokens() -> None:
    first, second = (
        bf.compile({**VIT, "head": [{"op": "take_token", "index": i}, "logits"]}) for i in (0, 1)
    )  # fmt: skip
    assert first.hash != second.hash
    one = bf.compile(with_stem("add_tokens", head=[{"op": "take_token", "index": 0}, "logits"]))
    assert one.hash == bf.compile(with_stem("add_tokens", head=["take_token", "logits"])).hash

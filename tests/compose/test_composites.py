"""Ops of ops: each composite in a whole network, whose shapes, costs and memory are the module's own."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import dwconv, linear, network

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.registry import make
from blockforge.eject import check, write_ejected
from blockforge.spec import from_text
from blockforge.testing import check_spec


def half(start: Any) -> dict[str, Any]:
    return {"from": "input", "op": {"op": "slice", "start": start, "size": "$(in // 2)"}}


THREE = {"a": "identity", "b": "mlp", "c": dwconv()}
NETWORKS: dict[str, dict[str, Any]] = {
    "chain": network({"op": [dwconv(5), "layer_norm", linear("$(4 * in)"), linear()], "norm": "none", "scale": 1e-6}),
    "named": network({"op": {"op": "chain", "of": {"wide": linear("$(2 * in)"), "narrow": linear()}}}),
    "parallel": network({"op": {"op": "parallel", "of": ["mlp", ["layer_norm", dwconv()]]}}),
    "gate": network({"op": {"op": "parallel", "join": "mul", "of": ["identity", ["global_pool", linear("$in")]]}}),
    "split": network({"op": {"op": "split", "of": [dwconv(), "identity"]}}),
    "shares": network(
        {"op": [linear("$(3 * in)"), {"op": "split", "join": "sum", "of": THREE}]}
    ),
    "repeat": network({"op": {"op": "repeat", "times": 3, "of": ["layer_norm", linear()]}}),
    "share": network({"op": {"op": "repeat", "times": 3, "share": True, "of": ["layer_norm", linear()]}}),
    "shared on smaller maps": network(
        {"op": {"op": "repeat", "share": True, "of": [dwconv(stride=2), "attention"]}, "skip": False},
        stages=[{"dim": 32, "depth": 1, "layers": "b"}],
    ),
    "positions": network({"op": {"op": "across", "of": [linear(20), linear("$in")]}}),
    "rows": network({"op": {"op": "across", "axis": "rows", "of": [linear(20), linear("$in")]}}),
    "tiles": network({"op": {"op": "tiles", "size": 4, "of": "mlp"}}),
    "rolled": network({"op": {"op": "tiles", "size": [3, 5], "shift": 1, "of": ["mlp", dwconv()]}}),
    "grid": network({"op": {"op": "tiles", "size": 4, "order": "grid", "of": ["mlp", dwconv()]}}),
    "count": network({"op": {"op": "tiles", "count": 3, "of": ["mlp", dwconv()]}}),
    "residual": network(
        {
            "op": [
                {"op": "residual", "norm": "layer_norm", "scale": 0.1, "of": [linear("$(2 * in)"), linear("$in")]},
                {"op": "residual", "skip": linear(), "of": dwconv()},
            ],
            "skip": False,
        },
        drop_path=0.2,
    ),
    "a part called residual": network({"op": ["gelu", {"op": "residual", "of": dwconv()}], "norm": "none"}),
    "projection": network({"op": [linear("$(2 * in)"), linear()], "skip": ["layer_norm", linear()], "scale": 0.3}),
    "condition": network({"op": [linear("$(2 * in)"), linear()], "skip": "$(in == out)"}, drop_path=0.2),
    "graph": network(
        {
            "op": {
                "op": "graph",
                "of": {
                    "a": {"from": half(0), "op": dwconv()},
                    "b": {"from": ["a", half("$(in // 2)")], "op": "mlp"},
                    "all": {"from": ["a", "b"], "join": "concat"},
                },
            }
        }
    ),
    "strided": network(
        {
            "op": {"op": "conv", "dim": "$out", "kernel_size": 3, "stride": "$(2 if layer == 0 else 1)"},
            "norm": "none",
            "skip": {"op": "conv", "dim": "$out", "stride": 2, "when": "$(layer == 0)"},
        },
        downsample="none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_composites_is_what_its_graph_says(name: str) -> None:
    check_spec(bf.compile(NETWORKS[name]))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_composites_is_the_same_when_it_is_written_out(name: str) -> None:
    assert bf.compile(from_text(bf.expand(NETWORKS[name]))).hash == bf.compile(NETWORKS[name]).hash


@pytest.mark.parametrize("name", ["residual", "rolled", "graph"])
def test_copies_and_pickles_run(name: str) -> None:
    model = bf.build(NETWORKS[name]).eval()
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        y = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(x), y)


def test_blocks_that_differ_in_names_alone_both_run() -> None:
    x = torch.randn(1, 3, 40, 56)
    for name in ("first", "second"):
        named = {"op": "chain", "of": {name: linear("$(2 * in)"), "last": linear()}}
        model = bf.build(network({"op": named}))
        assert model(x).shape == (1, 10)
        assert any(f".{name}." in key for key in model.state_dict())


def test_one_op_is_that_op() -> None:
    """A list of one says nothing: names, weights and hash are those of the op."""
    alone, listed = (bf.compile(network({"op": op})) for op in ("mlp", ["mlp"]))
    assert alone.hash == listed.hash


def test_when_renames_nothing() -> None:
    def names(when: bool) -> set[str]:
        model = bf.build(network({"op": [dwconv(when=when), dwconv(), linear()]}))
        return set(model.state_dict())

    assert names(False) < names(True)


def test_weights_shared_by_repetitions_count_once() -> None:
    once, shared = (
        bf.compile(network({"op": {"op": "repeat", "times": times, "share": True, "of": linear()}})) for times in (1, 4)
    )
    assert shared.params == once.params
    assert shared.macs > once.macs


POOL = {"op": "avg_pool", "kernel_size": 2, "ceil": True}


@pytest.mark.parametrize(
    ("of", "match"),
    [
        (linear(24), "'linear' reads 16x10x14 the first time and 24x10x14 later"),
        ([POOL, "pos_embed"], "'pos_embed' reads 16x5x7 the first time and 16x3x4 later"),
        ([POOL, {"op": "across", "axis": "rows", "of": "linear"}], "'across' reads 16x5x7 the first time"),
        ([POOL, "small"], "'linear' is not among the parts of the first time"),
    ],
)
def test_what_cannot_be_shared_is_refused(of: Any, match: str) -> None:
    """Weights for one width or one size of the map serve no other. One error, at what asks for it."""
    spec = network(
        {"op": {"op": "repeat", "share": True, "of": of}, "skip": False},
        define={"small": {"op": "linear", "when": "$(height < 5)"}},
        stages=[{"depth": 1, "layers": "b"}],
        stem={"op": "conv", "dim": 16, "kernel_size": 4, "stride": 4},
    )
    with pytest.raises(bf.SpecError, match=match) as e:
        bf.compile(spec)
    assert [d.path[-1] for d in e.value.diagnostics] == ["share"]


def test_parts_that_are_shared_keep_the_names_that_they_found() -> None:
    """Of two that are called alike the second has a number, each time."""
    source = {"from": "input", "op": linear("$in")}
    of = {"a_from_0": source, "a": {"from": [source]}, "z": {"from": ["a_from_0", "a"]}}
    op = {"op": "repeat", "share": True, "of": {"op": "graph", "of": of}}
    program = bf.compile(network({"op": op})).nodes["stages.0.layers.0.repeat"].written_out
    assert program is not None
    names = [step.path for step in program.steps]
    assert names[:3] == names[3:]
    assert "0.graph.a_from_0_2" in names


@pytest.mark.parametrize("key", ["", "a.b", "a b"])
@pytest.mark.parametrize("op", ["parallel", "split", "graph"])
def test_members_are_called_by_names(op: str, key: str) -> None:
    member = {"from": "input", "op": "gelu"} if op == "graph" else "gelu"
    with pytest.raises(bf.SpecError, match=f"'{key}' cannot be a name here") as e:
        bf.compile(network({"op": {"op": op, "of": {key: member}}}))
    assert len(e.value.diagnostics) == 1


@pytest.mark.parametrize("op", ["tiles", "across"])
def test_tokens_within_what_works_on_a_map_are_told_by_its_name(op: str) -> None:
    with pytest.raises(bf.SpecError, match=rf"'{op}' makes one map of what is in it.*\n.*\n? *hint: drop_tokens"):
        bf.compile(network({"op": {"op": op, "of": "add_tokens"}}))


@pytest.mark.parametrize("post_act", [["relu", "gelu"], "mlp", ["relu", "mlp"]])
def test_behind_the_sum_of_a_residual_stands_one_activation(post_act: Any) -> None:
    with pytest.raises(bf.SpecError, match="post_act is one activation"):
        bf.compile(network({"op": {"op": "residual", "of": "mlp", "post_act": post_act}}))
    bf.compile(network({"op": {"op": "residual", "of": "mlp", "post_act": ["relu"]}}))


def test_a_split_without_ops_is_refused() -> None:
    with pytest.raises(bf.SpecError, match="it has no op that takes the channels"):
        bf.compile(network({"op": {"op": "split", "of": []}}))


def test_linear_attention_in_rolled_tiles_is_refused() -> None:
    attend = [linear("$(3 * in)"), {"op": "attend", "head_dim": 8, "form": "relu_linear"}]
    with pytest.raises(bf.SpecError, match="relu_linear cannot keep the positions of rolled tiles apart"):
        bf.compile(network({"op": {"op": "tiles", "size": 4, "shift": "half", "of": attend}}))
    bf.compile(network({"op": {"op": "tiles", "size": 4, "of": attend}}))


ATTEND = [linear("$(3 * in)"), {"op": "attend", "num_heads": 2}]
POOL: dict[str, Any] = {"op": "avg_pool", "kernel_size": 2}


def rolled(*of: Any) -> dict[str, Any]:
    tiles = {"op": "tiles", "size": 4, "shift": 2, "of": list(of)}
    return network({"op": tiles, "norm": "none", "skip": False}, input={"size": [32, 32]})


def crossing(q: Any, kv: Any) -> dict[str, Any]:
    return {"op": "parallel", "join": {"op": "attend", "num_heads": 1}, "of": [q, kv]}


@pytest.mark.parametrize(
    "of",
    [
        [],
        ["layer_norm", {"op": "tiles", "size": 2, "of": linear(16)}],
        [{"op": "parallel", "join": "mul", "of": ["identity", ["global_pool", linear(16)]]}],
    ],
)
def test_attention_in_rolled_tiles_keeps_apart_what_the_roll_brought_together(of: list[Any]) -> None:
    """Of an 8x8 map the last tile has the rows 6, 7 and, rolled there, 0 and 1. The gate sees the rolled map."""
    attend = crossing(linear(16), linear(32))
    shape = Shape(8, 8, 16)
    for ops in ([linear(48), {"op": "attend", "num_heads": 2}], [attend]):
        tiles: Any = make("tiles", {"size": 4, "shift": 2, "of": [*of, *ops]}, "part")
        x = torch.randn(1, *shape, requires_grad=True)
        tiles.build(shape, None).eval()(x)[0, 0, 3].square().sum().backward()
        assert x.grad is not None
        read = [row for row in range(8) if x.grad[0, row].any()]
        assert read == ([0, 1] if "parallel" not in str(of) else [0, 1, 6, 7])


@pytest.mark.parametrize(
    "of",
    [
        [{"op": "tiles", "size": 4, "of": ATTEND}],
        [{"op": "tiles", "size": 2, "shift": 1, "of": ATTEND}],
        [{"op": "across", "of": ATTEND}],
        [{"op": "across", "axis": "rows", "of": [linear("$(6 * in)"), ATTEND[1], linear("$(in // 6)")]}],
        [POOL, *ATTEND, "resize"],
        [POOL, {"op": "pad", "top": 1, "left": 1, "bottom": 1, "right": 1}, *ATTEND],
        ["space_to_depth", *ATTEND],
        [{"op": "adaptive_pool", "size": 2}, *ATTEND, "resize"],
        [{"op": "adaptive_pool", "size": 4}, *ATTEND],  # as large as tiles of this map by chance
        [crossing(linear("$in"), [POOL, linear("$(2 * in)")])],
        [crossing(["global_pool", linear("$in")], linear("$(2 * in)"))],
    ],
)
def test_attention_at_other_positions_than_rolled_tiles_have_is_refused(of: list[Any]) -> None:
    with pytest.raises(bf.SpecError, match=r"'attend' in rolled tiles reads .* not at the tile's own positions"):
        bf.compile(rolled(*of))


def test_attention_that_nobody_could_tell_of_rolled_tiles_is_refused() -> None:
    with pytest.raises(bf.SpecError, match="attention within 'convnext' cannot keep the positions of rolled tiles"):
        bf.compile(rolled({"op": "convnext", "inner_norm": ATTEND}))


def test_a_stem_of_one_op_may_say_the_width_it_is_asked_for() -> None:
    stem = {"op": "conv", "dim": "$out", "kernel_size": 4, "stride": 4}
    alone, listed = (bf.compile(network({"op": "mlp"}, stem=form)) for form in (stem, [stem]))
    assert alone.hash == listed.hash


def graph(**members: Any) -> dict[str, Any]:
    return network({"op": {"op": "graph", "of": members}})


def test_a_member_of_a_graph_that_is_absent_is_no_source() -> None:
    both = {"from": ["a", "input"], "op": linear("$in")}
    with_a, without = (
        bf.compile(graph(a={"from": "input", "op": "mlp", "when": when}, z=both)) for when in (True, False)
    )
    assert without.params < with_a.params
    check_spec(without)
    with pytest.raises(bf.SpecError, match="when is true or false, not 7"):
        bf.compile(graph(a={"from": "input", "op": "mlp", "when": 7}, z=both))


def test_a_member_of_a_graph_may_be_an_op_and_is_read_by_somebody() -> None:
    check_spec(bf.compile(graph(a=linear("$(2 * in)"), z={"op": "linear", "dim": "$in"})))
    with pytest.raises(bf.SpecError, match="nobody reads the member 'a'"):
        bf.compile(graph(a={"from": "input", "op": "mlp"}, z={"from": "input", "op": "gelu"}))


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ({"from": "input", "op": "dwconv", "join": "sum"}, "a source has no key 'join'"),
        ({"from": ["input", "input"]}, "a source is the name of a member"),
        ({"from": {"from": "input"}}, "a source is the name of a member"),
        ({"from": 3}, "a source is the name of a member"),
        ([["input"]], "a source is the name of a member"),
    ],
)
def test_a_source_of_a_member_is_a_name_or_an_op_on_one(source: Any, match: str) -> None:
    with pytest.raises(bf.SpecError, match=match):
        bf.compile(graph(a={"from": source, "op": "mlp"}))


def test_a_join_gives_its_own_width_unless_it_is_asked_by_itself() -> None:
    """What is forgotten in a member's width is no hidden convolution."""
    members = ["identity", linear("$in")]
    with pytest.raises(bf.SpecError, match=r"the op gives 32x10x14, the identity path 16x10x14"):
        bf.compile(network({"op": {"op": "parallel", "join": "concat", "of": members}}))
    asked = {"op": "parallel", "join": {"op": "concat", "dim": "$out"}, "of": members}
    check_spec(bf.compile(network({"op": asked})))
    with pytest.raises(bf.SpecError, match="'sum' gives 16 channels, not 5"):
        bf.compile(network({"op": {"op": "parallel", "join": {"op": "sum", "dim": 5}, "of": ["identity", "gelu"]}}))


def test_a_join_of_one_map_does_what_it_says() -> None:
    """A factor, or another width: neither is left out where `when` or a list leaves a single map."""
    narrow = bf.compile(network({"op": {"op": "parallel", "join": {"op": "concat", "dim": "$out"}, "of": [linear(6)]}}))
    check_spec(narrow)
    times_5 = [{"op": "parallel", "join": {"op": "sum", "weights": [5]}, "of": ["identity"]}, "global_pool"]
    plain, five = (bf.build(network({"op": "mlp"}, head=head), seed=0).eval() for head in (["global_pool"], times_5))
    image = torch.randn(2, 3, *five.arch.plan.input.size)
    torch.testing.assert_close(five(image), 5 * plain(image))


@pytest.mark.parametrize("op", ["parallel", "split"])
def test_a_join_reads_the_names_of_its_place(op: str) -> None:
    """As members do: behind another op `in` is still what the branch reads."""
    pair = {"op": op, "of": ["gelu", "relu"], "join": {"op": "concat", "dim": "$in"}}
    check_spec(bf.compile(network({"op": [linear("$(2 * in)"), pair]})))


def test_a_member_of_a_graph_may_be_called_as_a_definition() -> None:
    """As may a word that is a value of a parameter."""
    body = [{"op": "global_pool", "pool": "$how"}, linear("$in")]
    defined = {"max": "gelu", "nearest": "relu", "d": {"params": {"how": "max"}, "body": body}}
    beside = {"op": "parallel", "of": ["identity", "d"]}
    pooled = {"op": "parallel", "join": {"op": "sum", "resize": "nearest"}, "of": [beside, {"op": "avg_pool"}]}
    head = {"op": "classifier", "pool": "max"}
    check_spec(bf.compile(network({"op": pooled}, define=defined, head=head)))
    members = {"pre": {"from": "input", "op": "pre"}, "all": {"from": ["pre", {"from": "pre", "op": "gelu"}]}}
    check_spec(bf.compile(network({"op": {"op": "graph", "of": members}}, define={"pre": ["batch_norm", "relu"]})))


@pytest.mark.parametrize("op", [[{"op": "lineer", "dim": "$out"}], {"op": "lineer", "dim": "$out"}])
def test_an_unknown_op_is_told_as_one(op: Any) -> None:
    with pytest.raises(bf.SpecError, match=r"there is no op named 'lineer'[\s\S]*did you mean 'linear'"):
        bf.compile(network({"op": op}))


@pytest.mark.parametrize("op", ["mlp", "attention", "star_relu", "layer_norm"])
def test_only_convolutions_and_linear_layers_lose_a_bias_to_a_norm(op: str) -> None:
    """A block with a parameter of that name keeps its own."""
    behind, alone = (bf.build(network({"op": [op, norm]})).state_dict() for norm in ("batch_norm", "layer_norm"))
    kept = {name for name in alone if f".op.{op}." in name}
    assert kept == {name for name in behind if f".op.{op}." in name}


@pytest.mark.parametrize("name", ["program", "code", "run", "made", "become", "half", "forward", "parameters"])
def test_a_part_may_be_called_as_a_module_calls_its_own(name: str) -> None:
    """Names of torch's modules, and of what holds the modules of the parts."""
    members = {"op": "parallel", "of": {name: "linear", "other": "linear"}}
    model = bf.build(network({"op": members}), seed=0)
    assert any(key.endswith(f".{name}_op.weight") for key, _ in model.named_parameters())
    x = torch.randn(1, model.in_chans, *model.arch.plan.input.size)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model.eval()))(x), model(x))


@pytest.mark.parametrize(
    ("op", "match"),
    [
        ({"op": "across", "of": linear(5)}, "across positions gives 5, it reads 140 .*hint: dim: .in"),
        ({"op": "across", "axis": "rows", "of": linear(5)}, "across rows gives 5, it reads 10"),
        ({"op": "tiles", "size": 4, "count": 2}, r"size and count are both given .*op\.count"),
        ({"op": "tiles", "size": 7, "count": 2}, r"size and count are both given .*op\.count"),
        ({"op": "graph", "of": {"input": {"from": "input"}}}, r"'input' is what the graph reads.*op\.of\.input"),
    ],
)
def test_what_cannot_be_meant_is_told_where_it_is_written(op: dict[str, Any], match: str) -> None:
    with pytest.raises(bf.SpecError, match=f"(?s){match}"):
        bf.compile(network({"op": op, "skip": False}))


def test_a_definition_has_a_name_that_means_no_more(tmp_path: Path) -> None:
    with pytest.raises(bf.SpecError, match=r"'none' is no op, and no name of one \(define\.none\)"):
        bf.compile(network("mlp", define={"none": "mlp"}))
    define = {"in": [linear()], "true": [dwconv(), linear()], "lambda": "gelu"}
    model = bf.build(network({"op": "in"}, {"op": "true"}, {"op": "lambda"}, define=define), seed=0)
    assert write_ejected(model, tmp_path / "net.py").error <= check.TOLERANCE

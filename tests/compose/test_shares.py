"""`split` with `count`: equal shares of the channels that go through one op, with weights of their own or shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import dwconv, linear, network
from torch import nn

import blockforge as bf
from blockforge.blocks.base import Shape
from blockforge.blocks.registry import make
from blockforge.eject import check, write_ejected
from blockforge.export import export_model
from blockforge.spec import from_text
from blockforge.testing import check_spec, randomise


def shares(of: Any, count: Any = 4, **more: Any) -> dict[str, Any]:
    return {"op": "split", "count": count, "share": True, "of": of, **more}


ATTEND = {"op": "attend", "num_heads": 2, "bias": "rel_pos_vectors"}
WITHIN, AROUND = [linear("$(3 * in // 2)"), ATTEND], [linear("$(3 * in)"), ATTEND]
HEADS = {"op": "attend", "num_heads": 4, "bias": "rel_pos_vectors"}
NETWORKS: dict[str, dict[str, Any]] = {
    "own": network({"op": {"op": "split", "count": 4, "of": [dwconv(), "layer_norm"]}}),
    "shared": network({"op": shares([dwconv(bias=False), "layer_norm"])}),
    "one": network({"op": shares(dwconv(), 1)}),
    "wider": network({"op": [shares(["relu", linear(5)]), linear()]}, drop_path=0.2),
    "statistics": network({"op": shares([dwconv(), "batch_norm", "relu", "drop_path"])}, drop_path=0.2),
    "joined": network({"op": [shares(["relu", linear("$in")], join="mul"), linear()]}),
    "joined by weights": network({"op": [shares("gelu", join={"op": "concat", "dim": "$(2 * in)"}), linear()]}),
    "in each other": network({"op": shares([dwconv(), shares("linear", 2)], 2)}),
    "repeated": network({"op": {"op": "repeat", "share": True, "of": shares([dwconv(), "gelu"])}}),
    "in rolled tiles": network({"op": {"op": "tiles", "size": 4, "shift": 2, "of": shares(WITHIN, 2)}}),
    "around rolled tiles": network({"op": shares({"op": "tiles", "size": 4, "shift": 2, "of": AROUND}, 2)}),
    "beside tokens": network(
        {"op": ["add_tokens", shares(["layer_norm", linear(6)]), "drop_tokens", linear()]}
    ),
    "pooled heads": network(
        {
            "op": {
                "op": "parallel",
                "join": HEADS,
                "of": {role: [linear("$in"), shares(dwconv(stride=2 if role in "kv" else 1))] for role in "qkv"},
            }
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_shares_is_what_its_graph_says(name: str) -> None:
    arch = bf.compile(NETWORKS[name])
    check_spec(arch)
    assert bf.compile(from_text(bf.expand(NETWORKS[name]))).hash == arch.hash


def built(op: dict[str, Any], shape: Shape) -> Any:
    torch.manual_seed(0)
    return randomise(make(op.pop("op"), op, "part").build(shape, None)).double()


@pytest.mark.parametrize(
    "of", [[dwconv(), "layer_norm"], linear(5), "attention", {"op": "tiles", "of": "mlp"}], ids=str
)
def test_one_op_gives_of_each_share_what_it_gives_of_that_alone(of: Any) -> None:
    module = built(shares(of, 3), Shape(5, 4, 96)).eval()
    alone = built({"op": "chain", "of": of if isinstance(of, list) else [of]}, Shape(5, 4, 32)).eval()
    alone.load_state_dict({k.removeprefix("split."): v for k, v in module.state_dict().items()})
    x = torch.randn(2, 5, 4, 96, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(module(x), torch.cat([alone(share) for share in x.chunk(3, -1)], -1))


def test_statistics_are_of_all_shares() -> None:
    """Of the batch that they are, not of each share in turn."""
    module, norm = built(shares(["batch_norm"], 3), Shape(5, 4, 12)), nn.BatchNorm2d(4).double()
    norm.load_state_dict({k.rpartition(".")[2]: v for k, v in module.state_dict().items()})
    x = torch.randn(2, 5, 4, 12, dtype=torch.double)
    batch = torch.cat(x.chunk(3, -1)).permute(0, 3, 1, 2)
    y = torch.cat(norm(batch).permute(0, 2, 3, 1).chunk(3), -1)
    torch.testing.assert_close(module(x), y)
    means = [v for k, v in module.state_dict().items() if k.endswith("running_mean")]
    assert len(means) == 1
    torch.testing.assert_close(means[0], norm.running_mean)


def test_weights_count_once_and_products_each_time() -> None:
    own, shared = (bf.compile(network({"op": {**shares(dwconv(bias=False)), "share": s}})) for s in (False, True))
    whole = bf.compile(network({"op": dwconv(bias=False)}))
    assert own.params == whole.params > shared.params
    assert own.macs == whole.macs == shared.macs


def test_a_map_of_one_position_is_copied() -> None:
    """What comes next may overwrite its share, but not the map, which others read as well."""
    both = {"op": "parallel", "of": ["identity", shares("relu", 2)]}
    module = built(both, Shape(1, 1, 8)).eval()
    x = torch.randn(1, 1, 1, 8, dtype=torch.double)
    kept = x.clone()
    with torch.no_grad():
        assert torch.equal(module(x), kept + kept.relu())
    assert torch.equal(x, kept)


def test_a_part_that_is_shared_has_the_name_of_its_op() -> None:
    for share, names in ((True, {"split.dwconv"}), (False, {"split.0", "split.1"})):
        op = {**shares(dwconv(), 2), "share": share}
        found = {key.rpartition(".")[0] for key in built(op, Shape(5, 4, 8)).state_dict()}
        assert found == {name.removeprefix("split.") for name in names}


@pytest.mark.parametrize(
    ("op", "match", "key"),
    [
        (shares(dwconv(), 3), "dim 16 is not divisible by count 3", "count"),
        (shares(dwconv(), 0), "count", "count"),
        (shares(dwconv(), "four"), "count", "count"),
        ({"op": "split", "share": True, "of": [dwconv(), "identity"]}, "share is for equal shares of one op", "share"),
        ({"op": "split", "sizes": [8, 8], "count": 2, "of": "gelu"}, "sizes and count are both given", "count"),
        (shares({"a": "gelu", "b": "relu"}), "an op is missing", "of"),
        (shares([dwconv(), "nothing"]), "there is no op named 'nothing'", "1"),
    ],
)
def test_what_is_wrong_is_told_once_where_it_is_written(op: dict[str, Any], match: str, key: str) -> None:
    with pytest.raises(bf.SpecError, match=f"(?s){match}") as e:
        bf.compile(network({"op": op}, stages=[{"dim": 16, "depth": 2, "layers": "b"}]))
    assert [str(d.path[-1]) for d in e.value.diagnostics] == [key]


def test_it_leaves_as_one_file_and_in_standard_operators(tmp_path: Path) -> None:
    model = bf.build(NETWORKS["pooled heads"], seed=0).eval()
    assert write_ejected(model, tmp_path / "net.py").error <= check.TOLERANCE
    export_model(model, tmp_path / "net.onnx", "onnx")

"""A spec written out is the same network, and nothing in it stands for something elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import blockforge as bf
from blockforge.cli import main
from blockforge.spec import from_text

LIBRARY = "blockforge: 1\ndefine: {wide: {params: {k: 3}, body: [{op: dwconv, kernel_size: $k}, inner]}, inner: mlp}\n"


def written_out(source: Any) -> dict[str, Any]:
    """The tree of a spec that is written out, which is still the same network and stays as it is."""
    text = bf.expand(source)
    again = from_text(text)
    assert bf.compile(again).hash == bf.compile(source).hash
    assert bf.expand(again) == text
    return again.tree


def network(**more: Any) -> dict[str, Any]:
    stages = [{"dim": 16, "depth": 2, "layers": "b"}, {"dim": 32, "depth": 3, "layers": "b"}]
    return {
        "blockforge": 1, "name": "net", "input": {"size": 64}, "num_classes": 10, "stem": "conv_stem",
        "downsample": "conv_downsample", "blocks": {"b": ["mlp"]}, "stages": stages, "head": "classifier", **more,
    }  # fmt: skip


@pytest.mark.parametrize("name", bf.list_specs())
def test_the_zoo(name: str) -> None:
    tree = written_out(name)
    assert not {"extends", "let", "use", "defaults"} & tree.keys()
    assert not any("let" in stage for stage in tree["stages"])


def test_a_block_has_a_form_for_each_set_of_values() -> None:
    stages = [
        {"dim": 16, "depth": 3, "layers": "(b c)*", "let": {"k": 5}},
        {"dim": "$w", "depth": 4, "layers": "b* c*", "let": {"k": 7}},
    ]
    blocks = {
        "b": [{"op": "dwconv", "kernel_size": "$k"}],
        "c": [{"op": "mlp", "mlp_ratio": "$(1 if layer == 1 else r)"}],
    }
    lets = {"w": "$(8 * r)", "r": 4}
    tree = written_out(network(let=lets, defaults={"norm": "layer_norm", "scale": 0.1}, blocks=blocks, stages=stages))
    assert tree["stages"] == [
        {"dim": 16, "depth": 3, "layers": "b c b"},
        {"dim": 32, "depth": 4, "layers": "b_2*2 c_2*2"},
    ]
    assert tree["blocks"]["b_2"] == [{"op": "dwconv", "kernel_size": 7, "norm": "layer_norm", "scale": 0.1}]
    assert [tree["blocks"][n][0]["mlp_ratio"] for n in ("c", "c_2")] == [1, 4]


def test_what_the_maps_know_stays() -> None:
    chain = [{"op": "linear", "dim": "$(r * in)"}, "gelu", {"op": "linear", "dim": "$out"}]
    tree = written_out(network(let={"r": 3}, blocks={"b": [{"op": chain, "skip": "$(in == out)"}]}))
    assert tree["blocks"]["b"][0]["op"] == [
        {"op": "linear", "dim": "$(3 * in)"},
        "gelu",
        {"op": "linear", "dim": "$out"},
    ]


def test_an_item_of_a_list_is_said_by_cases() -> None:
    block = [{"op": [{"op": "dwconv", "kernel_size": "$(kernels[in // 16 - 1])"}]}]
    stages = [{"dim": dim, "depth": 1, "layers": "b"} for dim in (16, 32, 48)]
    tree = written_out(network(let={"kernels": [3, 5, 7]}, blocks={"b": block}, stages=stages))
    assert "kernels" not in str(tree)


def test_files_of_definitions_become_one_table_of_what_is_used(tmp_path: Path) -> None:
    (tmp_path / "lib.yaml").write_text(LIBRARY, encoding="utf-8")
    net = tmp_path / "net.yaml"
    net.write_text(yaml.safe_dump(network(use=["std", "lib.yaml"], blocks={"b": [{"op": "wide", "k": 5}]})))
    tree = written_out(net)
    assert tree["define"].keys() == {"wide", "inner"}
    assert "use" not in tree


@pytest.mark.parametrize(
    "more",
    [
        {"use": {"m": "lib.yaml"}, "blocks": {"b": [{"op": "m.wide"}]}},
        {"use": ["lib.yaml"], "define": {"inner": "dwconv"}, "blocks": {"b": [{"op": "wide"}, {"op": "inner"}]}},
        {"use": ["other.yaml"], "blocks": {"b": [{"op": "outer"}, {"op": "mlp"}]}},
    ],
    ids=["prefix", "two of one name", "a private name of a block"],
)
def test_files_stay_apart_where_a_name_would_mean_another(more: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "lib.yaml").write_text(LIBRARY, encoding="utf-8")
    (tmp_path / "own.yaml").write_text("blockforge: 1\ndefine: {mlp: {op: dwconv, kernel_size: 5}}\n", encoding="utf-8")
    (tmp_path / "other.yaml").write_text(
        "blockforge: 1\nuse: [own.yaml]\ndefine: {outer: [mlp, gelu]}\n", encoding="utf-8"
    )
    net = tmp_path / "net.yaml"
    net.write_text(yaml.safe_dump(network(**more)))
    assert "use" in written_out(net)


def test_long_patterns_keep_their_group() -> None:
    names = {"a_block_of_a_long_name": ["mlp"], "another_one": [{"op": "dwconv"}]}
    stages = [{"dim": 16, "depth": 101, "layers": f"({' '.join(names)})*"}]
    assert written_out(network(blocks=names, stages=stages))["stages"] == stages


def test_downsamples_of_their_own_stay_with_their_stages() -> None:
    stages = [{"dim": 16, "depth": 1, "layers": "b"}, {"dim": 16, "depth": 1, "layers": "b", "downsample": "none"}]
    stages.append({"dim": 32, "depth": 1, "layers": "b"})
    tree = written_out(network(stages=stages))
    assert "downsample" not in tree
    assert [s.get("downsample") for s in tree["stages"]] == [None, None, "conv_downsample"]


def test_a_hole_must_be_filled() -> None:
    space = network(blocks={"b": [{"op": "mlp", "mlp_ratio": {"$choice": [2, 4]}}]})
    with pytest.raises(bf.SpecError, match="is a hole"):
        bf.expand(space)
    assert written_out(bf.load(space, {"blocks.b.0.mlp_ratio": 4}))["blocks"] == {"b": [{"op": "mlp", "mlp_ratio": 4}]}


def test_the_command_prints_or_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["expand", "smt_t", "--set", "num_classes=10"]) == 0
    assert capsys.readouterr().out == bf.expand("smt_t", {"num_classes": 10})
    file = tmp_path / "smt.yaml"
    assert main(["expand", "smt_t", "-o", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == bf.expand("smt_t")

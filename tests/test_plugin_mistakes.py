"""Code of others that raises, or gives what nobody can use: an error that names it, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.blocks import registry
from blockforge.cli import main
from blockforge.compiler.graph.connect import RULES
from blockforge.errors import DataError, PluginError, WeightsError
from blockforge.plugins import load_plugin, plugin_code
from blockforge.spec.load import SPECS
from blockforge.train.data import Want
from blockforge.train.opening import SOURCES, look
from blockforge.weights.family import FAMILIES, family_of

DATA = Path(__file__).parent / "data" / "plugin"
SPEC = DATA / "pool_mixer.yaml"
FAILS = r"broken\.py:\d+\): KeyError: 'no such key'"


@pytest.fixture(autouse=True, scope="module")
def _plugins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for known in (registry.BLOCKS, RULES, SOURCES, FAMILIES):
            patch.setattr(known, "things", dict(known))
            patch.setattr(known, "_modules", dict(known.modules()))
        for name in ("pool_mixer.py", "broken.py"):
            load_plugin(DATA / name)
        yield


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("to_nobody", "gives something to 99, of layers 0 to 1"),
        ("backwards", "gives 1 to layer 0"),
        ("in_words", "gives '0' to layer 1"),
        ("twice", "gives one layer twice to layer 1"),
        ("in_parts", r"gives 0\.0 to layer 1"),
        ("alone", "gives 0 to layer 1"),
        ("named", "gives something to 'last'"),
        ("nothing", "gives None"),
        ("failing", FAILS),
        ("leaving", "SystemExit: 3"),
    ],
)
def test_a_rule_that_is_wrong_is_told_where_it_is_asked_for(rule: str, told: str) -> None:
    connect = {"rule": rule, "aggregate": {"op": "sum"}}
    with pytest.raises(bf.SpecError, match=rf"error\[plugin\]: the rule '{rule}' (?=.*broken\.py).*{told}") as e:
        bf.compile(SPEC, {"stages.1.connect": connect})
    assert e.value.diagnostics[0].path == ("stages", 1, "connect", "rule")


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("cost_fails", FAILS),
        ("cost_is_none", r"cost of block .*broken\.py\) gives NoneType"),
        ("check_leaves", "SystemExit: 3"),
        ("shape_is_a_list", r"out_shape of block .* gives list"),
    ],
)
def test_a_block_that_is_wrong_is_told_where_it_is_written(block: str, told: str) -> None:
    with pytest.raises(bf.SpecError, match=rf"error\[plugin\]: (.|\n)*{told}") as e:
        bf.compile(SPEC, {"blocks.pool.0": {"op": block}})
    assert e.value.diagnostics[0].path == ("blocks", "pool", 0)


def test_a_block_that_cannot_be_built_is_named() -> None:
    with pytest.raises(PluginError, match=f"block 'build_fails' failed .*{FAILS}"):
        bf.build(SPEC, {"blocks.pool.0": {"op": "build_fails"}})
    with pytest.raises(PluginError, match=r"block 'builds_nothing' \(.*broken\.py\) builds NoneType"):
        bf.build(SPEC, {"blocks.pool.0": {"op": "builds_nothing"}})


@pytest.mark.parametrize(
    "change",
    [
        {"blocks.pool.0": {"op": ["gelu", "build_fails"]}},
        {"blocks.pool.0": {"op": "pooling", "norm": "norm_fails"}},
        {"blocks.pool.0": {"op": "pooling", "norm": ["norm_fails", "gelu"]}},
        {"stem": {"op": "conv_stem2", "norm": "norm_fails"}},
        {"head": ["global_pool", "norm_fails", "logits"]},
    ],
)
def test_a_part_of_a_block_that_cannot_be_built_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=f"block '.*' failed .*{FAILS}"):
        bf.build(SPEC, change)
    with pytest.raises(PluginError, match=FAILS):
        bf.build(SPEC, out_indices=[0], out_norm="norm_fails")


def test_images_that_fail_while_they_are_read_are_named() -> None:
    torn, want = look("torn").val, Want((8, 8), 1, 1)
    batches = torn.batches(want)
    assert next(batches)[0].shape == (1, 1, 8, 8)
    for run in (lambda: next(batches), torn.statistics):
        with pytest.raises(DataError, match=f"data source 'torn' failed .*{FAILS}"):
            run()
    with pytest.raises(DataError, match=r"'no_pairs' \(.*broken.py\) gives int as a batch"):
        next(look("no_pairs").train.batches(want))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fails", f"failed .*{FAILS}"),
        ("gives_none", "gives NoneType\n  hint: it gives an Opened"),
        ("without_images", "gives NoneType as images to train"),
        ("one_name", "gives ab as names of classes"),
        ("no_classes", "TypeError"),
    ],
)
def test_a_data_source_that_is_wrong_is_named(name: str, told: str) -> None:
    with pytest.raises(DataError, match=rf"data source '{name}' (?=.*broken\.py).*{told}"):
        look(name)


def test_a_layout_that_fails_is_named() -> None:
    with pytest.raises(WeightsError, match=f"matches of the weight layout 'broken' failed .*{FAILS}"):
        family_of({"broken_layout": None})


def test_a_broken_spec_of_a_plugin_is_named_and_the_zoo_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SPECS, "things", dict(SPECS))
    monkeypatch.setattr(SPECS, "_modules", dict(SPECS.modules()))
    (tmp_path / "smt_tiny_odd.yaml").write_text("blockforge: 1\nnmae: odd\n")
    (tmp_path / "smt_tiny_lost.yaml").mkdir()
    SPECS.add_folder(tmp_path, "odd_package")
    assert main(["zoo", "smt_t*"]) == 1
    told = capsys.readouterr()
    assert "smt_t " in told.out
    assert "the spec 'smt_tiny_odd' of module odd_package is left out" in told.err
    assert f"{tmp_path / 'smt_tiny_odd.yaml'}:2:1: error[unknown-key]" in told.err
    assert f"cannot read {tmp_path / 'smt_tiny_lost.yaml'}: is a directory" in told.err


def test_our_own_mistakes_keep_their_traceback() -> None:
    def ours() -> Any:
        with plugin_code("a block", "blockforge.blocks.mixers.sam"):
            return {}["x"]

    with pytest.raises(KeyError):
        ours()

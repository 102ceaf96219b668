"""Blocks of others: what is saved names them, and says how to get them where they are missing."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import blockforge as bf
from blockforge.blocks import registry
from blockforge.compiler.graph.connect import rule
from blockforge.errors import PluginError
from blockforge.provenance import Source, needed
from blockforge.saving import spec_text
from blockforge.search.objectives.registry import objective
from blockforge.search.samplers.registry import sampler
from blockforge.search.space.load import SPACES, load_space
from blockforge.spec.load import SPECS
from blockforge.train.opening import source
from blockforge.train.recipe import RECIPES, load_recipe

DATA = Path(__file__).parent / "data" / "plugin"
CODE = (DATA / "pool_mixer.py").read_text(encoding="utf-8")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model with a block of the plugin, which is then forgotten."""
    before = dict(registry.blocks())
    monkeypatch.setattr(registry.BLOCKS, "things", dict(before))
    registry.load_plugin(DATA / "pool_mixer.py")
    bf.save_model(bf.build(DATA / "pool_mixer.yaml"), tmp_path)
    monkeypatch.setattr(registry.BLOCKS, "things", before)
    monkeypatch.setattr(registry, "_MADE", {})
    return tmp_path


def test_a_saved_folder_names_its_plugin(saved: Path) -> None:
    file = str(DATA / "pool_mixer.py")
    assert json.loads((saved / "versions.json").read_text())["plugins"] == [{"plugin": file, "blocks": ["pool_mixer"]}]
    for load in (lambda: bf.load_model(saved), lambda: bf.build(saved / "spec.yaml")):
        with pytest.raises(
            bf.SpecError, match=r"no mixer .*named 'pool_mixer'(.|\n)*where it is from: .*--plugin"
        ) as e:
            load()
        assert f"--plugin {file}" in str(e.value)
    registry.load_plugin(file)
    assert bf.load_model(saved).arch.hash == bf.compile(DATA / "pool_mixer.yaml").hash


def test_reading_never_loads(saved: Path) -> None:
    (saved / "versions.json").write_text('{"plugins": [{"plugin": "evil.py", "blocks": ["pool_mixer"]}]}')
    with pytest.raises(bf.SpecError):
        bf.load_model(saved)
    assert "pool_mixer" not in registry.blocks()


def test_our_own_blocks_need_nothing(tmp_path: Path) -> None:
    spec = bf.load("smt_t")
    assert needed(spec.tree) == {}
    assert spec_text(spec) == spec.to_yaml(header=False)


def test_a_package_is_named_by_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    (tmp_path / "pooling_blocks.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    entry = SimpleNamespace(module="pooling_blocks", dist=SimpleNamespace(name="bf-pooling"))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    __import__("pooling_blocks")
    monkeypatch.delitem(sys.modules, "pooling_blocks")
    spec = bf.load(DATA / "pool_mixer.yaml")
    assert needed(spec.tree) == {Source("package", "bf-pooling"): ["pool_mixer"]}
    text = spec_text(spec)
    assert text.startswith("# needs package bf-pooling for pool_mixer\n")
    registry.BLOCKS.things.pop("pool_mixer")
    monkeypatch.setattr(registry, "_MADE", {})
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(bf.SpecError, match="where it is from: pip install bf-pooling"):
        bf.compile(file)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.BLOCKS, "things", dict(registry.blocks()))
    registry.load_plugin(DATA / "pool_mixer.py")
    (tmp_path / "pool_mixer.py").write_text(CODE.replace('"pool_mixer"', '"other"'))
    with pytest.raises(PluginError, match=r"two plugin files are named pool_mixer.py\n  hint: rename"):
        registry.load_plugin(tmp_path / "pool_mixer.py")


@pytest.mark.parametrize("where", ["plug.py", "package bf-pooling", "module my.blocks"])
def test_where_is_read_back(where: str) -> None:
    assert Source.at(where).where() == where


def test_yaml_of_a_package_that_is_no_text_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("name: caf\u00e9\n".encode("latin-1"))
    for known, read in ((SPECS, bf.load), (SPACES, load_space), (RECIPES, load_recipe)):
        list(known)  # ours first
        monkeypatch.setitem(known.things, "latin", file)
        with pytest.raises(bf.SpecError, match=r"latin\.yaml is not UTF-8 text: byte 0xe9 in line 1"):
            read("latin")


@pytest.mark.parametrize("decorator", [objective, sampler, rule, source])
def test_what_is_registered_needs_a_name_that_a_text_can_say(decorator: Any) -> None:
    for name in (lambda arch: 1.0, "a:b", "", 5):
        with pytest.raises(PluginError, match="cannot be"):
            decorator(name) if decorator is not source else source(name, "mine")  # type: ignore[arg-type]


def test_a_rule_derives_from_rule() -> None:
    with pytest.raises(PluginError, match=r"rule 'odd' .* does not derive from Rule"):
        rule("odd")(int)  # type: ignore[arg-type]

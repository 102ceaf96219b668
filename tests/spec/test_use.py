"""`use`: files of definitions, read into the spec that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.errors import SpecError, format_path
from blockforge.spec import Spec, from_text, load, resolve
from blockforge.spec.glossary import Glossary
from blockforge.spec.load import DEFINITIONS

Tiny = Callable[..., str]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, tiny: Tiny) -> Write:
    """`write("net.yaml", "use: [...]")`: the tiny spec with more keys, beside files of definitions given by name."""

    def make(more: str, **files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name}.yaml"
            path.write_text(text if "blockforge" in text else f"blockforge: 1\n{text}", encoding="utf-8")
        net = tmp_path / "net.yaml"
        net.write_text(f"{tiny()}{more}\n", encoding="utf-8")
        return net

    return make


def glossary(spec: Spec) -> Glossary:
    return resolve(spec).glossary


def body(spec: Spec, name: str) -> Any:
    found = glossary(spec).find(name)
    return None if found is None else found.body


def test_a_file_is_read_into_the_spec(write: Write) -> None:
    spec = load(write("use: [lib.yaml]", lib="define: {ln: {op: layer_norm, eps: 1e-6}}"))
    assert spec.tree["use"] == [{"define": {"ln": {"op": "layer_norm", "eps": 1e-6}}}]
    assert body(spec, "ln") == {"op": "layer_norm", "eps": 1e-6}


def test_a_spec_that_uses_files_stands_alone(write: Write, tmp_path: Path) -> None:
    spec = load(write("use: {m: lib.yaml}", lib="use: [std]\ndefine: {f: [conv_bn]}"))
    for file in tmp_path.iterdir():
        file.unlink()
    again = from_text(spec.to_yaml())
    assert again.tree == spec.tree
    assert glossary(again) == glossary(spec)


def test_a_prefix_stands_before_the_names(write: Write) -> None:
    spec = load(write("use: {m: lib.yaml, n: other.yaml}", lib="define: {f: mlp}", other="define: {f: conv_mlp}"))
    assert [body(spec, name) for name in ("m.f", "n.f", "f")] == ["mlp", "conv_mlp", None]
    assert glossary(spec).names() == ["m.f", "n.f"]


def test_names_and_prefixes_stand_in_one_list(write: Write) -> None:
    spec = load(write("use: [std, {m: lib.yaml}]", lib="define: {f: mlp}"))
    assert [body(spec, name) is None for name in ("m.f", "conv_bn", "m.conv_bn")] == [False, False, True]


def test_what_a_file_uses_only_the_file_sees(write: Write) -> None:
    spec = load(write("use: [lib.yaml]", lib="use: [other.yaml]\ndefine: {f: [g]}", other="define: {g: mlp}"))
    found = glossary(spec).find("f")
    assert found is not None
    inner = found.glossary.find("g")
    assert inner is not None
    assert inner.path == ("use", 0, "use", 0, "define", "g")
    assert glossary(spec).find("g") is None


def test_a_spec_s_own_definition_wins(write: Write) -> None:
    spec = load(write("use: [lib.yaml]\ndefine: {f: mlp}", lib="define: {f: conv_mlp}"))
    assert body(spec, "f") == "mlp"


def test_places_are_those_of_the_file(write: Write) -> None:
    locs = load(write("use: {m: lib.yaml}", lib="define:\n  f: [mlp, {op: x, k: 3}]")).locs
    place = locs.value(("use", 0, "define", "f", 1, "k"))
    assert place is not None
    assert (Path(place.source.name).name, place.line, place.column) == ("lib.yaml", 3, 23)


def test_extends_merges_definitions_and_adds_files(write: Write, tmp_path: Path) -> None:
    net = write("use: [a.yaml]\ndefine: {f: {op: mlp, mlp_ratio: 2}, g: mlp}", a="define: {x: mlp}")
    child = tmp_path / "below" / "child.yaml"
    child.parent.mkdir()
    (child.parent / "b.yaml").write_text("blockforge: 1\ndefine:\n  y: mlp\n", encoding="utf-8")
    text = f"extends: ../{net.name}\nuse: [../a.yaml, b.yaml]\ndefine: {{f: {{mlp_ratio: 3}}, g: {{body: x}}}}\n"
    child.write_text(text, encoding="utf-8")
    spec = load(child)
    assert spec.tree["use"] == [{"define": {"x": "mlp"}}, {"define": {"y": "mlp"}}]
    assert spec.tree["define"] == {"f": {"op": "mlp", "mlp_ratio": 3}, "g": {"body": "x"}}
    place = spec.locs.value(("use", 1, "define", "y"))
    assert place is not None
    assert (Path(place.source.name).name, place.line) == ("b.yaml", 3)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_packaged_files_can_be_used(name: str, tiny: Tiny) -> None:
    spec = from_text(f"{tiny()}use: [{name}]\n")
    assert glossary(spec).names()


@pytest.mark.parametrize(
    ("use", "file", "error"),
    [
        ("[lib.yml]", "", "cannot read .*lib.yml: no such file or directory"),
        ("[sdt]", "", "no file of definitions is named 'sdt'(.|\n)*did you mean 'std'"),
        ("[lib.yaml]", "use: [lib.yaml]", "use goes in a circle: .*lib.yaml -> .*lib.yaml"),
        ("[lib.yaml]", "use: [net.yaml]", "use goes in a circle: .*net.yaml -> .*lib.yaml -> .*net.yaml"),
        ("[lib.yaml]", "stages: []", "lib.yaml:2:1: .*a file of definitions holds no 'stages'"),
        ("[lib.yaml]", "blockforge: 2", "lib.yaml does not say its version"),
        ("[lib.yaml]", "define: {f: 3}", "lib.yaml:2:13: .*this should be a block"),
        ("[3]", "", "this should be a mapping, not 3"),
        ("3", "", "this should be a list, not 3"),
        ("{$choice: [[std], []]}", "", "no hole may stand here"),
        ("$heads", "", "no reference may stand here"),
        ("{'a b': std}", "", "'a b' is not a name"),
        ("[{define: {}, stages: 3}]", "", "there is no key 'stages' here"),
    ],
)
def test_what_cannot_be_used(write: Write, use: str, file: str, error: str) -> None:
    with pytest.raises(SpecError, match=error):
        load(write(f"use: {use}", lib=file))


def test_two_files_must_not_give_one_name(write: Write) -> None:
    files = {"a": "define: {f: mlp, g: mlp}", "b": "define:\n  g: conv_mlp\n"}
    with pytest.raises(SpecError, match="two files that are used give 'g'") as caught:
        load(write("use: [a.yaml, b.yaml]", **files))
    text = str(caught.value)
    assert "hint: give one of them a prefix, as in use: [std, {m: lib.yaml}], and write m.g" in text
    assert "net.yaml:19:15" in text
    assert "a.yaml:2:18" in text
    assert "b.yaml:3:3" in text
    for said in ("use: [a.yaml, {m: b.yaml}]", "use: [a.yaml, b.yaml]\ndefine: {g: mlp}", "use: [a.yaml, a.yaml]"):
        assert body(load(write(said, **files)), "g") == "mlp"


def test_a_file_s_mistake_is_told_once(write: Write) -> None:
    with pytest.raises(SpecError, match="has no parameter") as caught:
        load(write("use: {a: lib.yaml, b: lib.yaml}", lib="define: {f: [$x]}"))
    assert len(caught.value.diagnostics) == 1


def test_files_are_bounded(write: Write) -> None:
    chain = {f"f{i}": f"use: {{a: f{i + 1}.yaml, b: f{i + 1}.yaml}}" for i in range(12)}
    with pytest.raises(SpecError, match="use leads to more than 64 files"):
        load(write("use: [f0.yaml]", **chain, f12="define: {}"))
    big = "define: {" + ", ".join(f"n{i}: [{'mlp, ' * 50}]" for i in range(200)) + "}"
    with pytest.raises(SpecError, match="more than 20000 values") as caught:
        load(write("use: {a: big.yaml, b: big.yaml}", big=big))
    assert format_path(caught.value.diagnostics[0].path).startswith("use")


def test_an_override_may_use_files(write: Write) -> None:
    assert body(load(write(""), ["use=[std]"]), "se") is not None


def test_a_plugin_may_ship_files(tmp_path: Path, tiny: Tiny) -> None:
    (tmp_path / "mine.yaml").write_text("blockforge: 1\nuse: [std]\ndefine: {my_block: [conv_bn]}\n", encoding="utf-8")
    try:
        DEFINITIONS.add_folder(tmp_path, "plugin")
        assert body(from_text(f"{tiny()}use: [mine]\n"), "my_block") == ["conv_bn"]
    finally:
        DEFINITIONS.things.pop("mine", None)


def test_modules_of_ops_under_a_prefix_have_names(tmp_path: Path) -> None:
    wide = "[{op: linear, dim: $(2 * in)}, gelu, {op: linear, dim: $out}]"
    (tmp_path / "lib.yaml").write_text(f"blockforge: 1\ndefine: {{wide: {wide}}}\n")
    (tmp_path / "net.yaml").write_text(
        "blockforge: 1\nname: net\ninput: {size: 16}\nuse: [{m: lib.yaml}]\nstem: {op: patch_embed, patch: 4}\n"
        "blocks: {b: [m.wide, {op: [m.wide, m.wide], norm: none}]}\nstages: [{dim: 8, depth: 1, layers: b}]\n"
        "head: [m.wide, global_pool, logits]\n"
    )
    names = bf.build(tmp_path / "net.yaml").state_dict()
    assert "stages.0.layers.0.m_wide.op.linear.weight" in names
    assert "head.m_wide.linear.weight" in names


def test_a_used_file_does_not_change_what_a_base_means(tmp_path: Path) -> None:
    """`mlp` of the base is the registered block; a file that gives the name to something else needs a prefix."""
    (tmp_path / "lib.yaml").write_text("blockforge: 1\ndefine: {mlp: {op: linear, dim: $out}}", encoding="utf-8")
    (tmp_path / "base.yaml").write_text(
        "blockforge: 1\nname: base\nblocks: {b: [mlp]}\nstem: patch_embed\n"
        "stages: [{dim: 8, depth: 1, layers: b}]\nhead: classifier\n",
        encoding="utf-8",
    )
    net = tmp_path / "net.yaml"

    def written(more: str) -> Path:
        net.write_text(f"blockforge: 1\nname: net\nextends: base.yaml\n{more}\n", encoding="utf-8")
        return net

    with pytest.raises(SpecError, match=r"net.yaml:4:7: error\[use\]: 'mlp' of this file would stand in place") as e:
        load(written("use: [lib.yaml]"))
    assert e.value.diagnostics[0].hint == "use the file under a prefix, use: {s: ...}, and call {op: s.mlp}"
    kept = load(written("use: {s: lib.yaml}"))
    assert bf.compile(kept).params == bf.compile(tmp_path / "base.yaml").params
    load(written("use: [lib.yaml]\ndefine: {mlp: {op: linear, dim: $out}}"))  # said by the spec itself: it is meant
    with pytest.raises(SpecError, match="would stand in place of the block 'bottleneck'"):
        from_text("blockforge: 1\nname: net\nextends: resnet50\nuse: [std]\n")

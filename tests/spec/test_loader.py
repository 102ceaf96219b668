"""The YAML loader: values, places, single values and files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from blockforge.errors import Loc, SpecError
from blockforge.spec.yaml.loader import MAX_BYTES, load_file, load_text, load_value

SPEC = """\
blockforge: 1
name: tiny
about: {paper: "A title: with a colon", reported: {params: 32.0M, top1: 84.3}}
drop_path: 0.3
defaults: {norm: {op: layer_norm, eps: 1e-6}}
let: &names
  S: 2       # a comment
blocks:
  sam:
    - {op: sam, num_heads: 4, bias: true, note: on}
    - {op: conv_mlp, mlp_ratio: $mlp_ratio, norm: null}
stages:
  - {dim: 64, depth: 4, layers: sam, let: {mlp_ratio: 8}}
  - {dim: 256, depth: 28, layers: (sam msa)*, let: *names}
patch: {2: {depth: 12}}
"""


# --- values and places -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("parser")
def test_a_spec() -> None:
    document = load_text(SPEC, "s")
    tree = document.tree
    assert tree["about"] == {"paper": "A title: with a colon", "reported": {"params": "32.0M", "top1": 84.3}}
    assert tree["defaults"] == {"norm": {"op": "layer_norm", "eps": 1e-6}}
    assert tree["blocks"]["sam"][0] == {"op": "sam", "num_heads": 4, "bias": True, "note": "on"}
    assert tree["blocks"]["sam"][1] == {"op": "conv_mlp", "mlp_ratio": "$mlp_ratio", "norm": None}
    assert tree["stages"][1] == {"dim": 256, "depth": 28, "layers": "(sam msa)*", "let": {"S": 2}}
    assert tree["patch"] == {2: {"depth": 12}}
    layers = document.locs.table["stages", 1, "layers"]
    assert layers[0] is not None
    assert (str(layers[0]), layers[0].length) == ("s:14:27", 6)
    assert (str(layers[1]), layers[1].length) == ("s:14:35", 10)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(t, None) for t in ("~", "null", "Null", "NULL")],
        *[(t, True) for t in ("true", "True", "TRUE")],
        *[(t, False) for t in ("false", "False", "FALSE")],
        *[(t, t) for t in ("on", "off", "yes", "no", "y", "n", "On", "YES", "tRue", "nULL", "=", "a#b", "x:y")],
        *[(t, t) for t in ("1_000", "12:30:45", "2024-01-01", "2024-01-01T00:00:00Z", "0b11", "1.2.3", "+", "e3")],
        *[(t, t) for t in ("-0x1f", "0o8", "0xg", "1e", ".", "-.", "1e5.0", "inf", "nan", "٣", "1 000", "(a b)*")],
        *[("0o17", 15), ("0x1F", 31), ("0", 0), ("-0", 0), ("+12", 12), ("007", 7), ("-42", -42)],
        *[("9223372036854775807", 2**63 - 1), ("-9223372036854775808", -(2**63)), (f"{'0' * 5000}1", 1)],
        *[
            ("1e-3", 1e-3),
            ("1.0e10", 1e10),
            (".5", 0.5),
            ("-.5", -0.5),
            ("5.", 5.0),
            ("1E+3", 1000.0),
            ("1e-999", 0.0),
        ],
        *[
            ("'12'", "12"),
            ('"true"', "true"),
            ("'~'", "~"),
            ('""', ""),
            ('"\\x41\\n"', "A\n"),
            ("'it''s'", "it's"),
        ],
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    tree = load_text(f"a: {text}\n").tree
    assert (tree["a"], type(tree["a"])) == (value, type(value))
    assert load_value(text, "--set a").tree == value


@pytest.mark.usefixtures("parser")
def test_nothing_written_is_null() -> None:
    document = load_text("a:\nb: {c: , d: 1}\ne:\n  -\n  - 1\n", "s")
    assert document.tree == {"a": None, "b": {"c": None, "d": 1}, "e": [None, 1]}
    assert str(document.locs.value(("a",))) == "s:1:3"
    assert str(document.locs.value(("b", "c"))) == "s:2:7"


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "path", "key", "value"),
    [
        ("é: x", ("é",), (1, 1, 1), (1, 4, 1)),
        ("😀😀: 'ab'  # c", ("😀😀",), (1, 1, 2), (1, 5, 4)),
        ("\ufeffa: x", ("a",), (1, 1, 1), (1, 4, 1)),
        ("a: 1\r\nb: x\r\n", ("b",), (2, 1, 1), (2, 4, 1)),
        ("a: 1\rb: x", ("b",), (2, 1, 1), (2, 4, 1)),
        ("# c\n---\na: [1,\n 2]  ", ("a",), (3, 1, 1), (3, 4, 3)),
        ("a: [1, [2]]", ("a", 1), None, (1, 8, 3)),
        ("a: |  \n  text\n", ("a",), (1, 1, 1), (1, 4, 1)),
        ("a: one\n   two\n", ("a",), (1, 1, 1), (1, 4, 3)),
        ("a:\n  b: 1", ("a",), (1, 1, 1), (2, 3, 1)),
        ("a:\n- 1", ("a",), (1, 1, 1), (2, 1, 1)),
        ("a: &n  12", ("a",), (1, 1, 1), (1, 8, 2)),
        ("a: &n  # c\n  b: 1", ("a",), (1, 1, 1), (2, 3, 1)),
        ("a: &n\n  [1]\n", ("a",), (1, 1, 1), (2, 3, 3)),
        ("[a: 12]", (0, "a"), (1, 2, 1), (1, 5, 2)),
        ("? a\n: b", ("a",), (1, 3, 1), (2, 3, 1)),
    ],
)
def test_places(text: str, path: tuple[str | int, ...], key: tuple[int, ...] | None, value: tuple[int, ...]) -> None:
    key_loc, value_loc = load_text(text).locs.table[path]
    assert place(value_loc) == value
    assert (key_loc and place(key_loc)) == key


def place(loc: Loc) -> tuple[int, int, int]:
    return loc.line, loc.column, loc.length


@pytest.mark.usefixtures("parser")
def test_an_alias_is_a_copy_that_points_at_its_anchor() -> None:
    document = load_text("a: &x {b: [1, {c: 2}]}\nd: *x\ne: [*x, &y 7, *y]\n", "s")
    tree, table = document.tree, document.locs.table
    assert tree["a"] == tree["d"] == tree["e"][0] == {"b": [1, {"c": 2}]}
    assert tree["e"][1:] == [7, 7]
    tree["d"]["b"][1]["c"] = 3
    tree["d"]["b"].append(4)
    assert tree["a"] == tree["e"][0] == {"b": [1, {"c": 2}]}
    for prefix in (("d",), ("e", 0)):
        for path in ((), ("b",), ("b", 0), ("b", 1), ("b", 1, "c")):
            assert table[*prefix, *path][1] == table["a", *path][1]
    key_loc, value_loc = table["d",]
    assert (str(key_loc), str(value_loc)) == ("s:2:1", "s:1:7")
    assert len(table) == 1 + 5 + 5 + 1 + 5 + 2


# --- one value ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("parser")
def test_values() -> None:
    texts = {
        "12": 12,
        "sam* msa*": "sam* msa*",
        "(sam msa)*": "(sam msa)*",
        "[2, 4]": [2, 4],
        "[2,4]": [2, 4],
        "{op: ssd}": {"op": "ssd"},
        "{$choice: [1, {a: b}]}": {"$choice": [1, {"a": "b"}]},
        "on": "on",
        " 'x' ": "x",
        "a, b": "a, b",
        "~": None,
    }
    assert {text: load_value(text, "--set a").tree for text in texts} == texts
    assert str(load_value("{op: ssd}", "--set a").locs.value(("op",))) == "--set a:1:6"


# --- files -------------------------------------------------------------------------------------------------


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("\ufeffname: é\r\n".encode())
    document = load_file(path)
    assert document.tree == {"name": "é"}
    assert str(document.locs.value(("name",))) == f"{path}:1:7"
    assert load_file(str(path)).tree == document.tree


def file_refusal(path: str | Path) -> str:
    with pytest.raises(SpecError, match=r"^error\[file\]: ") as caught:
        load_file(path)
    assert [d.code for d in caught.value.diagnostics] == ["file"]
    return str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    missing = tmp_path / "a.yaml"
    assert file_refusal(missing) == f"error[file]: cannot read {missing}: no such file or directory"
    assert file_refusal(tmp_path) == f"error[file]: cannot read {tmp_path}: it is a directory"
    assert file_refusal("a\0b") == r"error[file]: cannot read a\x00b: embedded null byte"
    assert file_refusal("") == "error[file]: cannot read : no such file or directory"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert file_refusal(loop).startswith(f"error[file]: cannot read {loop}: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_special_files_do_not_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        assert file_refusal(path) == f"error[file]: cannot read {path}: it is not a regular file"


def test_files_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert file_refusal(path) == (
        f"error[file]: {path} is not UTF-8 text: byte 0xff in line 2\n  hint: save it as UTF-8"
    )
    path.write_bytes("a: 1\n".encode("utf-16"))
    assert "is not UTF-8 text: byte 0xff in line 1" in file_refusal(path)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # sparse: reading all of it would take minutes
    assert file_refusal(path) == f"error[file]: cannot read {path}: it is larger than 256 KiB"
    path.write_bytes(b"#" * (MAX_BYTES - 5) + b"\na: 1")
    assert load_file(path).tree == {"a": 1}

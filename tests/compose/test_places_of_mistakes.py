"""What is wrong with ops is said once, where it is written, and with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

import blockforge as bf

FRAME = {
    "blocks": "{b: [mlp]}",
    "stem": "[{op: conv, dim: $out, kernel_size: 4, stride: 4}, layer_norm]",
    "downsample": "[layer_norm, {op: conv, dim: $out, kernel_size: 2, stride: 2}]",
    "stages": "[{dim: 16, depth: 1, layers: b}, {dim: 24, depth: 2, layers: b}]",
    "head": "[global_pool, layer_norm, logits]",
}


def mistake(folder: Path, key: str, value: str, caret: str, use: str = "[std]") -> bf.errors.Diagnostic:
    """The one error of the frame where a key is another, which is at `caret` in that key's line."""
    given = {k: v for k, v in FRAME.items() if (k, key) != ("head", "heads")} | {key: value}
    lines = ["blockforge: 1", "name: n", "input: {size: 32}", "num_classes: 10", f"use: {use}"]
    lines += ["defaults: {norm: layer_norm}", *(f"{k}: {v}" for k, v in given.items())]
    file = folder / "n.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(bf.SpecError) as error:
        bf.compile(str(file))
    (found,) = error.value.diagnostics
    assert found.loc is not None
    line = lines[found.loc.line - 1]
    assert line.startswith(f"{key}: ")
    assert line[found.loc.column - 1 :].startswith(caret)
    return found


CONV = "{op: conv, kernel_size: 2, stride: 2}"
WIDTHS = {
    "downsample": ("downsample", f"[layer_norm, {CONV}]", "{op: conv", "the downsample gives 16 channels, stage 1 has"),
    "stem": ("stem", f"[{CONV}, layer_norm]", "{op: conv", "the stem gives 3 channels, stage 0 has dim 16"),
    "of no width": ("downsample", "logits", "logits", "the downsample gives 10 channels, stage 1 has dim 24"),
    "pool": ("downsample", "{op: avg_pool, kernel_size: 2}", "{op: avg", "the downsample gives 16 channels"),
    "edge": (
        "stages",
        f"[{{dim: 16, layers: [b]}}, {{from: {{from: 0, op: [{CONV}, layer_norm]}}, dim: 24, layers: [b]}}]",
        "{op: conv",
        "the op gives 16 channels, stage 1 has dim 24",
    ),
    "branch": (
        "blocks",
        "{b: [{op: [{op: linear, dim: $(4 * in)}, gelu, linear], skip: false}]}",
        "linear]",
        "'linear' gives 64 channels",
    ),
}


@pytest.mark.parametrize("case", WIDTHS.values(), ids=WIDTHS)
def test_a_width_is_missed_where_it_could_be_given(tmp_path: Path, case: tuple[str, str, str, str]) -> None:
    key, value, caret, message = case
    found = mistake(tmp_path, key, value, caret)
    assert found.message.startswith(message)
    assert "dim: $out" in (found.hint or "")


def test_a_first_layer_may_give_the_width(tmp_path: Path) -> None:
    """Where only it could, it is where the width is missed."""
    pool = "{op: avg_pool, kernel_size: 2}"
    lines = {**FRAME, "downsample": pool, "blocks": "{b: [{op: {op: linear, dim: $out}, skip: false}]}"}
    head = ["blockforge: 1", "name: n", "input: {size: 32}", "num_classes: 10", "defaults: {norm: layer_norm}"]
    text = "\n".join([*head, *(f"{k}: {v}" for k, v in lines.items())])
    (tmp_path / "n.yaml").write_text(text)
    assert [shape[-1] for shape in bf.compile(str(tmp_path / "n.yaml")).stage_shapes()] == [16, 24]
    (tmp_path / "n.yaml").write_text(text.replace("{op: linear, dim: $out}", "[linear, gelu]"))
    with pytest.raises(bf.SpecError, match=r"'linear' gives 16 channels, its stage has dim 24.*\(blocks\.b\[0\]"):
        bf.compile(str(tmp_path / "n.yaml"))


def test_an_op_that_the_map_names_is_read_on_it(tmp_path: Path) -> None:
    found = mistake(tmp_path, "blocks", "{b: [{op: {op: $(in), dim: 3}}]}", "$(in)")
    assert found.message.startswith("16 is no op")


NAMES = {
    "capital": ("Linear", "'linear'", "[std]"),
    "part": ("conv2d", "'conv'", "[std]"),
    "norm": ("batchnorm", "'batch_norm'", "[std]"),
    "definition": ("s.lnn", "'s.ln'", "{s: std}"),
    "without prefix": ("ln", "'s.ln'", "{s: std}"),
}


@pytest.mark.parametrize(("name", "meant", "use"), NAMES.values(), ids=NAMES)
def test_whatever_may_stand_in_a_branch_is_suggested(tmp_path: Path, name: str, meant: str, use: str) -> None:
    found = mistake(tmp_path, "blocks", f"{{b: [{{op: {name}}}]}}", name, use)
    assert found.hint is not None
    assert found.hint.startswith(f"did you mean {meant}?")


NONE = {
    "branch": ("blocks", "{b: [mlp, none]}", "none is no op of a branch", "leave the branch out"),
    "when": ("blocks", "{b: [mlp, {op: none, when: $(layer > 0)}]}", "none is no op of a branch", "leave the branch"),
    "skip": ("skips", "[{from: 0, to: [1], op: none}]", "none is no op of a skip", "leave the skip out"),
    "layer": ("stages", "[{dim: 16, layers: [b, none]}]", "there is no block named 'none'", "leave the layer out"),
}


@pytest.mark.parametrize(("key", "value", "message", "hint"), NONE.values(), ids=NONE)
def test_none_is_left_out(tmp_path: Path, key: str, value: str, message: str, hint: str) -> None:
    found = mistake(tmp_path, key, value, "none")
    assert found.message.startswith(message)
    assert (found.hint or "").startswith(hint)


def test_keys_beside_from_are_those_that_may_stand_there(tmp_path: Path) -> None:
    found = mistake(tmp_path, "heads", "{a: {from: 1, op: logits, when: false}}", "when")
    assert (found.hint or "").startswith("keys here: from, join, op; ")

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


def of_width(expression: str) -> str:
    return f"{{b: [{{op: [{{op: linear, dim: '$({expression})'}}, {{op: linear, dim: $out}}]}}]}}"


EXPRESSIONS = {
    "by nothing": ("in // 0", "16 // 0 has no value", None),
    "item": ("in[0]", "16 is no list", None),
    "function": ("up(in, 0)", "up(16, 0) has no value", None),
    "nought": ("in * 0", "a width is a whole number from 1 to 65536, not 0", "as in dim: $(2 * in)"),
    "truth": ("not (in > 3)", "a width is a whole number from 1 to 65536, not false", "as in dim: $(2 * in)"),
    "half": ("in / 7", "a width is a whole number from 1 to 65536, not 2.28", "// leaves out the rest"),
}


@pytest.mark.parametrize(("expression", "message", "hint"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_a_width_that_is_computed_has_its_place(
    tmp_path: Path, expression: str, message: str, hint: str | None
) -> None:
    found = mistake(tmp_path, "blocks", of_width(expression), f"'$({expression})'")
    assert found.message.startswith(message)
    assert found.hint == hint


DIVISORS = {
    "heads": ("{op: rope, num_heads: 8}", "8}", "num_heads 6 or 12 would do"),
    "head_dim": ("{op: rope, head_dim: 6}", "6}", "head_dim 4 or 8 would do"),
    "sines": ("{op: sines, channels: 66}", "66}", "channels 64 or 68 would do"),
    "side": ("{op: pixel_shuffle, block: 5}", "5}", "channels 25 or 50, or block 2 or 4 would do"),
}


@pytest.mark.parametrize(("op", "caret", "hint"), DIVISORS.values(), ids=DIVISORS)
def test_values_that_would_do_are_those_that_can_be_set(tmp_path: Path, op: str, caret: str, hint: str) -> None:
    block = f"{{b: [{{op: [{{op: linear, dim: 48}}, {op}, {{op: linear, dim: $out}}], skip: false}}]}}"
    found = mistake(tmp_path, "blocks", block, caret)
    assert found.hint == hint


NESTED = {
    "value": ("{op: {op: dwconv, kernel_size: 4}}", "4}", "blocks.b[0].op.kernel_size"),
    "key": ("{op: {op: dwconv, groups: 4}}", "groups", "blocks.b[0].op.groups"),
    "list": ("{op: [{op: dwconv, groups: 4}]}", "groups", "blocks.b[0].op[0].groups"),
}


@pytest.mark.parametrize(("op", "caret", "path"), NESTED.values(), ids=NESTED)
def test_parameters_of_an_op_within_have_their_place(tmp_path: Path, op: str, caret: str, path: str) -> None:
    found = mistake(tmp_path, "blocks", f"{{b: [{op}]}}", caret)
    assert bf.errors.format_path(found.path) == path

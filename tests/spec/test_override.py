"""`--set path=value`, and the same in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from blockforge.errors import SpecError
from blockforge.spec import from_text, load, resolve

Tiny = Callable[..., str]


def at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree[int(part) if part.isdigit() else part]
    return tree


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ("stages.1.depth=12", "stages.1.depth", 12),
        ("stages[1].depth=12", "stages.1.depth", 12),
        ("let.heads=8", "let.heads", 8),
        ("let.mixer=ssd", "let.mixer", "ssd"),
        ("blocks.sam.0.num_heads=8", "blocks.sam.0.num_heads", 8),
        ("blocks.msa.1=conv_mlp", "blocks.msa.1", "conv_mlp"),
        ("defaults.norm.eps=1e-6", "defaults.norm", {"op": "layer_norm", "eps": 1e-6}),
        ("stages.1.connect.rule=dense", "stages.1.connect", {"rule": "dense"}),
        ("stages.1.layers='sam* msa*'", "stages.1.layers", "sam* msa*"),
        ("stages.1.layers=sam*2 msa*2", "stages.1.layers", "sam*2 msa*2"),
        ("input.size=[64, 96]", "input.size", [64, 96]),
        ("head={op: classifier, pool: max}", "head", {"op": "classifier", "pool": "max"}),
        ("stages.0.dim={$choice: [16, 32]}", "stages.0.dim", {"$choice": [16, 32]}),
        ("drop_path.constant=0.1", "drop_path", {"constant": 0.1}),
        ("stages.0.let.heads=2", "stages.0.let", {"heads": 2}),
        ("about.note=a = b", "about.note", "a = b"),
    ],
)
def test_sets(tiny: Tiny, given: str, path: str, value: Any) -> None:
    text = tiny(("(sam msa)*}", "(sam msa)*, connect: {rule: dense, aggregate: concat}}"))
    if "connect" in given:
        value = {**value, "aggregate": "concat"}
    assert at(load(from_text(text), [given]).tree, path) == value


def test_both_forms_say_the_same(tiny: Tiny) -> None:
    spec = from_text(tiny())
    by_text = load(spec, ["stages.1.depth=6", "input.size=[32, 64]"])
    by_value = load(spec, {"stages.1.depth": 6, "input.size": (32, 64)})
    assert by_text.tree == by_value.tree


def test_the_spec_it_came_from_stays_as_it_was(tiny: Tiny) -> None:
    spec = from_text(tiny())
    load(spec, ["stages.1.depth=6", "blocks.sam.0.num_heads=8"])
    assert spec.tree == from_text(tiny()).tree


def test_later_ones_see_earlier_ones(tiny: Tiny) -> None:
    spec = load(from_text(tiny()), ["downsample=conv_downsample", "downsample.kernel_size=5"])
    assert spec.tree["downsample"] == {"op": "conv_downsample", "kernel_size": 5}


def test_a_branch_in_short_form_takes_parameters(tiny: Tiny) -> None:
    text = tiny(("- {op: mlp, mlp_ratio: 2}", "- mlp"))
    spec = load(from_text(text), ["blocks.msa.1.mlp_ratio=3"])
    assert spec.tree["blocks"]["msa"][1] == {"op": "mlp", "mlp_ratio": 3}


def test_a_choice_is_set_by_its_label(tiny: Tiny) -> None:
    """What the message about an unfilled hole offers works, for choices among mappings too."""
    hole = "{$choice: [none, {rule: sparx, stride: {$int: [1, 4]}, aggregate: concat}]}"
    spec = from_text(tiny(("(sam msa)*}", f"(sam msa)*, connect: {hole}}}")))
    chosen = load(spec, ["stages.1.connect=sparx", "stages.1.connect.stride=2"])
    assert chosen.tree["stages"][1]["connect"] == {"rule": "sparx", "stride": 2, "aggregate": "concat"}
    assert load(spec, ["stages.1.connect=none"]).tree["stages"][1]["connect"] == "none"
    resolve(chosen)


def test_places_of_set_values_are_the_arguments(tiny: Tiny) -> None:
    spec = load(from_text(tiny()), ["head={op: classifier, pool: max}"])
    loc = spec.locs.value(("head", "pool"))
    assert str(loc) == "--set head:1:24"
    assert ("head", "norm") not in spec.locs.table


def test_all_mistakes_are_told_together(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match="is not path=value") as caught:
        load(from_text(tiny()), ["nothing", "stages.7.dim=1", "sta.ges=1", "head=[", "=3"])
    assert [d.code for d in caught.value.diagnostics] == ["set", "set", "set", "set", "yaml"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1.5: 2}, {"a": {True: 1}}, b"x"])
def test_values_that_no_spec_holds_are_refused(tiny: Tiny, value: Any) -> None:
    with pytest.raises(SpecError, match=r"no place in a spec|not a finite number|a key must be"):
        load(from_text(tiny()), {"about.x": value})


def test_data_that_holds_itself_is_refused(tiny: Tiny) -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    for use in (lambda: load(from_text(tiny()), {"about.x": loop}), lambda: load({"about": loop})):
        with pytest.raises(SpecError, match="nested more than 32 deep"):
            use()


def test_a_path_of_many_parts_is_refused(tiny: Tiny) -> None:
    with pytest.raises(SpecError, match="the path has 5001 parts; 32 are allowed"):
        load(from_text(tiny()), ["about" + ".a" * 5000 + "=1"])

"""`extends`: documents laid over each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blockforge.errors import SpecError, format_path
from blockforge.spec import Spec, from_text, load, resolve

Tiny = Callable[..., str]


@pytest.fixture
def variant(tmp_path: Path, tiny: Tiny) -> Callable[..., Spec]:
    """`variant(patch, base=...)`: the spec that `patch` makes of a base."""

    def make(patch: str, base: str | None = None) -> Spec:
        (tmp_path / "base.yaml").write_text(base or tiny(), encoding="utf-8")
        file = tmp_path / "variant.yaml"
        file.write_text(f"extends: base.yaml\n{patch}", encoding="utf-8")
        return load(file)

    return make


def test_mappings_merge_and_stages_patch_by_index(variant: Callable[..., Spec], tiny: Tiny) -> None:
    spec = variant("name: deeper\nstages: {1: {depth: 12, let: {x: 1}}}\nlet: {more: 2}\n")
    expected = from_text(tiny(("name: tiny", "name: deeper"))).tree
    expected["stages"][1].update(depth=12, let={"x": 1})
    expected["let"]["more"] = 2
    assert spec.tree == expected


def test_name_and_version_come_from_the_base(variant: Callable[..., Spec]) -> None:
    assert variant("num_classes: 10\n").name == "tiny"


def test_lists_and_scalars_replace(variant: Callable[..., Spec]) -> None:
    spec = variant("stages: [{dim: 48, depth: 1, layers: sam}]\nstem: conv_stem\ninput: {size: [64, 96]}\n")
    assert len(spec.tree["stages"]) == 1
    assert spec.tree["stem"] == "conv_stem"
    assert spec.tree["input"] == {"size": [64, 96]}


def test_items_of_a_block_patch_by_index(variant: Callable[..., Spec]) -> None:
    block = variant("blocks: {sam: {0: {num_heads: 8}, 1: {mlp_ratio: 2}}}\n").tree["blocks"]["sam"]
    assert block == [{"op": "sam", "num_heads": 8}, {"op": "conv_mlp", "mlp_ratio": 2}]


def test_another_op_replaces_the_parameters_too(variant: Callable[..., Spec]) -> None:
    """The base's parameters belong to the base's op."""
    tree = variant("blocks: {msa: {0: {op: dwconv}}}\ndownsample: {op: dwconv_downsample}\n").tree
    assert tree["blocks"]["msa"][0] == {"op": "dwconv"}
    assert tree["downsample"] == {"op": "dwconv_downsample"}


def test_the_same_op_keeps_them(variant: Callable[..., Spec]) -> None:
    tree = variant("downsample: {op: conv_downsample, kernel_size: 5}\n").tree
    assert tree["downsample"] == {"op": "conv_downsample", "norm": "layer_norm", "kernel_size": 5}


def test_a_short_form_takes_parameters(variant: Callable[..., Spec]) -> None:
    assert variant("defaults: {norm: {eps: 1.0e-6}}\n").tree["defaults"] == {"norm": {"op": "layer_norm", "eps": 1e-6}}


def test_a_hole_replaces_and_is_replaced(variant: Callable[..., Spec], tiny: Tiny) -> None:
    hole = {"$choice": ["none", {"op": "conv_downsample"}]}
    assert variant("downsample: {$choice: [none, {op: conv_downsample}]}\n").tree["downsample"] == hole
    base = tiny(("{op: conv_downsample, norm: layer_norm}", "{$choice: [conv_downsample, none]}"))
    assert variant("downsample: {op: conv_downsample}\n", base).tree["downsample"] == {"op": "conv_downsample"}


def test_none_switches_off(variant: Callable[..., Spec], tiny: Tiny) -> None:
    base = tiny(("(sam msa)*}", "(sam msa)*, window: 4}"))
    assert resolve(variant("stages: {1: {window: none}}\n", base)).stages[1].window is None


def test_chains_of_folders(tmp_path: Path, tiny: Tiny) -> None:
    """Paths count from the file that says `extends`; the nearest patch wins."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "base.yaml").write_text(tiny(), encoding="utf-8")
    (tmp_path / "deep" / "middle.yaml").write_text("extends: base.yaml\nnum_classes: 5\nname: m\n", encoding="utf-8")
    (tmp_path / "top.yaml").write_text("extends: deep/middle.yaml\nname: top\n", encoding="utf-8")
    spec = load(tmp_path / "top.yaml")
    assert (spec.name, spec.num_classes) == ("top", 5)


def test_the_zoo_can_be_extended() -> None:
    spec = from_text("extends: smt_b\nname: mine\nstages: {2: {depth: 3}}\n")
    assert [s["depth"] for s in spec.tree["stages"]] == [4, 6, 3, 2]


def test_a_mapping_extends_too() -> None:
    spec = load({"extends": "smt_b", "stages": {0: {"depth": 1}}})
    assert spec.tree["stages"][0]["depth"] == 1
    assert spec.name == "smt_b"


def test_places_lie_in_the_file_that_wrote_the_value(variant: Callable[..., Spec]) -> None:
    """After merging, every value still knows its file and line."""
    spec = variant("stages: {1: {dim: 128}}\nhead: {op: classifier}\n")

    def place(*path: str | int) -> tuple[str, int]:
        loc = spec.locs.value(path)
        assert loc is not None, format_path(path)
        return Path(loc.source.name).name, loc.line

    assert place("stages", 1, "dim") == ("variant.yaml", 2)
    assert place("stages", 1, "depth") == ("base.yaml", 17)
    assert place("head", "op") == ("variant.yaml", 3)
    assert place("head", "norm") == ("base.yaml", 18)
    assert place("blocks", "sam", 0, "op") == ("base.yaml", 8)


def test_a_replaced_value_leaves_no_places_behind(variant: Callable[..., Spec]) -> None:
    spec = variant("downsample: {op: dwconv_downsample}\n")
    assert ("downsample", "norm") not in spec.locs.table


def test_a_mistake_in_the_base_is_shown_there(variant: Callable[..., Spec], tiny: Tiny) -> None:
    with pytest.raises(SpecError, match=r"base.yaml:17:22: error\[value\]: this should be a whole number"):
        variant("num_classes: 5\n", tiny(("depth: 4", "depth: no")))

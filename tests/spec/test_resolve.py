"""References, defaults and the design's specs, written out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blockforge.errors import SpecError
from blockforge.spec import from_text, load, resolve

Tiny = Callable[..., str]
DESIGN = Path(__file__).parents[1] / "data" / "design"


def layers(plan: object, stage: int) -> str:
    return " ".join(name for name, _ in plan.stages[stage].layers)  # type: ignore[attr-defined]


# --- let


def test_a_stage_s_own_let_wins(tiny: Tiny) -> None:
    plan = resolve(from_text(tiny(("layers: sam}", "layers: sam, let: {heads: 8}}"))))
    heads = [stage.layers[0][1][0].op.spec.params["num_heads"] for stage in plan.stages]
    assert heads == [8, 4]


def test_names_may_stand_for_names_and_for_parts(tiny: Tiny) -> None:
    """A name of the spec's let sees the names of the stage that uses it."""
    text = tiny(
        ("let: {heads: 4}", "let: {heads: $h, mixer: {op: sam, num_heads: $heads}, h: 4}"),
        ("    - {op: sam, num_heads: $heads}", "    - $mixer"),
        ("layers: sam}", "layers: sam, let: {h: 2}}"),
    )
    plan = resolve(from_text(text))
    assert [s.layers[0][1][0].op.spec.params for s in plan.stages] == [{"num_heads": 2}, {"num_heads": 4}]


def test_every_place_takes_a_name(tiny: Tiny) -> None:
    names = "size: 96, dim: 48, depth: 3, plan: (sam msa)*, k: 10, rate: 0.2, norm: group_norm"
    text = tiny(
        (
            "let: {heads: 4}",
            f"let: {{heads: 4, {names}}}",
        ),
        ("{size: 64}", "{size: $size}"),
        ("dim: 64, depth: 4, layers: (sam msa)*", "dim: $dim, depth: $depth, layers: $plan"),
        ("defaults: {norm: layer_norm}", "defaults: {norm: $norm}\nnum_classes: $k\ndrop_path: $rate"),
    )
    plan = resolve(from_text(text))
    assert plan.input.size == [96, 96]
    assert plan.num_classes == 10
    assert plan.drop_path == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert (plan.stages[1].dim, layers(plan, 1)) == (48, "sam msa sam")
    norm = plan.stages[0].layers[0][1][0].norm
    assert norm is not None
    assert norm.spec.op == "group_norm"


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "[1]", "1000001"])
def test_what_a_name_gives_is_validated_where_it_is_used(tiny: Tiny, value: str) -> None:
    text = tiny(("let: {heads: 4}", f"let: {{heads: 4, k: {value}}}"), ("head:", "num_classes: $k\nhead:"))
    with pytest.raises(SpecError, match=r"(?s)this should be .*\(num_classes\).*the value comes from let.k"):
        resolve(from_text(text))


def test_a_stem_that_a_name_makes_none_is_refused(tiny: Tiny) -> None:
    text = tiny(("let: {heads: 4}", "let: {heads: 4, s: none}"), ("stem: {op: conv_stem}", "stem: $s"))
    with pytest.raises(SpecError, match="the stem cannot be none"):
        resolve(from_text(text))


def test_unknown_names_in_blocks_that_no_layer_uses_are_found(tiny: Tiny) -> None:
    text = tiny(("  msa:\n", "  spare: [{op: sam, num_heads: $hats}]\n  msa:\n"))
    with pytest.raises(SpecError, match=r"no let gives \$hats"):
        from_text(text)


# --- defaults


def test_defaults_hold_for_branches_that_do_not_say(tiny: Tiny) -> None:
    text = tiny(
        ("defaults: {norm: layer_norm}", "defaults: {norm: layer_norm, scale: 1.0e-5}"),
        ("num_heads: $heads}", "num_heads: $heads, norm: none}"),
        ("mlp_ratio: 4}", "mlp_ratio: 4, scale: none}"),
        ("num_heads: 4}", "num_heads: 4, scale: {skip: 1.0}, drop_path: false}"),
    )
    plan = resolve(from_text(text))
    (_, sam), (_, msa) = plan.stages[1].layers[:2]
    assert [b.norm.spec.op if b.norm else None for b in sam] == [None, "layer_norm"]
    assert [b.keys.scale.branch if b.keys.scale else None for b in sam] == [1e-5, None]
    assert [(b.keys.scale.branch, b.keys.scale.skip) for b in msa if b.keys.scale] == [(None, 1.0), (1e-5, None)]
    assert [b.keys.drop_path for b in msa] == [False, True]


def test_a_stage_s_downsample_comes_before_the_spec_s(tiny: Tiny) -> None:
    text = tiny(
        ("dim: 64,", "dim: 64, downsample: dwconv_downsample,"),
        ("dim: 32,", "dim: 32, downsample: conv_downsample,"),
    )
    plan = resolve(from_text(text))
    assert [s.downsample.spec.op for s in plan.stages if s.downsample] == [
        "conv_downsample",
        "dwconv_downsample",
    ]
    assert resolve(from_text(tiny())).stages[0].downsample is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.3", [0, 0.06, 0.12, 0.18, 0.24, 0.3]),
        ("{linear: 0.3}", [0, 0.06, 0.12, 0.18, 0.24, 0.3]),
        ("{constant: 0.1}", [0.1] * 6),
    ],
)
def test_drop_path_rates(tiny: Tiny, text: str, expected: list[float]) -> None:
    plan = resolve(from_text(tiny(("head:", f"drop_path: {text}\nhead:"))))
    assert plan.drop_path == pytest.approx(expected)


# --- the families of the design, though some of their blocks do not exist yet


@pytest.mark.parametrize("file", sorted(DESIGN.glob("*.yaml")), ids=lambda f: f.stem)
def test_design_specs_read_back(file: Path) -> None:
    spec = load(file)
    assert from_text(spec.to_yaml()).tree == spec.tree
    assert load(spec.tree).tree == spec.tree


@pytest.mark.parametrize(
    ("name", "depths", "stage", "pattern"),
    [
        ("smt_b", [4, 6, 28, 2], 2, "sam msa " * 14),
        ("sparx_mamba_t", [2, 2, 7, 2], 2, "vss " * 7),
        ("vssd_tiny", [2, 4, 8, 4], 3, "msa " * 4),
        ("mambavision_t", [1, 3, 8, 4], 2, "mamba " * 4 + "attn " * 4),
        ("strip_mlp_t", [2, 2, 12, 2], 2, "strip " * 12),
    ],
)
def test_design_specs_expand(name: str, depths: list[int], stage: int, pattern: str) -> None:
    plan = resolve(load(DESIGN / f"{name}.yaml"))
    assert [len(s.layers) for s in plan.stages] == depths
    assert layers(plan, stage) == pattern.strip()


def test_details_of_the_design_specs() -> None:
    mamba = resolve(load(DESIGN / "mambavision_t.yaml"))
    assert [s.window for s in mamba.stages] == [None, None, 14, 7]
    assert mamba.stages[0].layers[0][1][0].norm is None
    vssd = resolve(load(DESIGN / "vssd_tiny.yaml", ["let.mixer=ssd"]))
    assert [b.op.spec.op for b in vssd.stages[0].layers[0][1]] == ["dwconv", "ssd", "dwconv", "mlp"]
    assert [b.keys.drop_path for b in vssd.stages[0].layers[0][1]] == [False, True, False, True]
    assert vssd.stages[2].layers[0][1][1].op.spec.params["num_heads"] == 8
    strip = resolve(load(DESIGN / "strip_mlp_t.yaml"))
    assert [(s.source, s.targets) for s in strip.skips] == [(1, (2, 3)), (2, (3,))]
    assert set(strip.drop_path) == {0.1}
    sparx = resolve(load(DESIGN / "sparx_mamba_t.yaml"))
    scales = [s.layers[0][1][1].keys.scale for s in sparx.stages]
    assert [s.skip if s else None for s in scales] == [None, None, 1.0, 1.0]
    assert [s.connect.rule if s.connect else None for s in sparx.stages] == [None, "sparx", "sparx", "sparx"]

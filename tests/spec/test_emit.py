"""Spec -> YAML -> the same spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockforge.spec import from_text, load
from blockforge.spec.emit import SCHEMA_HEADER

BASE = {
    "blockforge": 1,
    "name": "x",
    "stem": "conv_stem",
    "stages": [{"dim": 32, "depth": 1, "layers": "b"}],
    "blocks": {"b": ["mlp"]},
    "head": "classifier",
}
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff")
NASTY = """on no null ~ 1e-3 1.0 0x10 0o7 .5 - ? : # *a &a !t %x @ ` ' " { [ << = $name true 2024-01-01
    12:30:45 1_000 é 日本 😀 ... ---""".split()  # noqa: SIM905
NASTY += ["", " ", "a: b", "# c", "a, b", "\n", "a\nb", "tab\there", "- a", "(sam msa)*", " lead", "trail "]
TEXT = st.text(CHARACTERS, max_size=40) | st.sampled_from([*NASTY, "x" * 300, "word " * 60])
SCALARS = st.one_of(
    TEXT,
    st.booleans(),
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
KEYS = st.text(
    st.characters(categories=["L", "N"], include_characters="_-. #:'\"{}[],&*!?|>%@$"),
    min_size=1,
    max_size=30,
)
NOTES = st.dictionaries(
    KEYS | st.integers(-5, 10**6),
    st.recursive(SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(KEYS, v, max_size=4), max_leaves=12),
    max_size=5,
)


@given(NOTES)
def test_any_value_comes_back(notes: dict[Any, Any]) -> None:
    """Text that YAML would read as a number stays text, numbers stay exact, and nothing is lost."""
    spec = load({**BASE, "about": notes})
    again = from_text(spec.to_yaml())
    assert again.tree == spec.tree
    assert repr(again.tree["about"]) == repr(spec.tree["about"])  # 1, 1.0 and True are equal, but not the same


def test_references_and_holes_stay(tiny: Callable[..., str]) -> None:
    text = tiny(("dim: 64", "dim: {$int: [64, 256, 32]}"), ("(sam msa)*", "{$choice: [(sam msa)*, sam* msa*]}"))
    spec = from_text(text)
    again = from_text(spec.to_yaml())
    assert again.tree == spec.tree
    assert again.tree["blocks"]["sam"][0]["num_heads"] == "$heads"
    assert again.tree["stages"][1]["dim"] == {"$int": [64, 256, 32]}


def test_the_order_is_the_reader_s(tiny: Callable[..., str]) -> None:
    """Who it is comes first; the rest stays in the order written."""
    spec = load({**{k: v for k, v in from_text(tiny()).tree.items() if k != "name"}, "name": "late"})
    keys = [line.split(":")[0] for line in spec.to_yaml(header=False).splitlines() if line[0] not in " -"]
    assert keys == [
        "blockforge",
        "name",
        "input",
        "let",
        "defaults",
        "blocks",
        "stem",
        "downsample",
        "stages",
        "head",
    ]
    assert spec.to_yaml().startswith(SCHEMA_HEADER)
    assert "yaml-language-server" not in spec.to_yaml(header=False)


def test_writing_is_stable(tiny: Callable[..., str]) -> None:
    once = from_text(tiny()).to_yaml()
    assert from_text(once).to_yaml() == once

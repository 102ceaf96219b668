"""What stands below a field describes it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from blockforge.described import Described, descriptions


class Base(Described):
    """A model with each way to say what a field means, and to leave it out."""

    dim: int = 0
    """Channels,
    not heads."""
    depth: int = 0
    alias: int = Field(0, alias="from")
    """Where it comes from."""
    said: int = Field(0, description="In its own words.")
    """And below."""


class Derived(Base):
    dim: int = 1
    depth: int = 1
    """Layers."""


def test_the_text_below_a_field_or_its_own_or_its_bases() -> None:
    assert descriptions(Base) == {
        "dim": "Channels,\nnot heads.",
        "alias": "Where it comes from.",
        "said": "In its own words.",
    }
    assert descriptions(Derived) == {**descriptions(Base), "depth": "Layers."}


def test_the_schema_says_it() -> None:
    properties = Derived.model_json_schema()["properties"]
    assert properties["dim"]["description"] == "Channels,\nnot heads."
    assert properties["from"]["description"] == "Where it comes from."
    assert properties["said"]["description"] == "In its own words."


def test_a_class_without_a_source_has_none() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec("from blockforge.described import Described\nclass A(Described):\n    a: int = 0\n    'a text'\n", names)
    assert descriptions(names["A"]) == {}


def test_a_class_in_a_function_is_read_too() -> None:
    class Here(Base):
        """Made anew by each call."""

        heads: int = 0
        """Of attention."""

    assert descriptions(Here) == {**descriptions(Base), "heads": "Of attention."}

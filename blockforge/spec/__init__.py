"""The language: YAML text -> Spec -> Plan. Needs no torch and knows no block."""

from __future__ import annotations

from blockforge.spec.emit import to_yaml
from blockforge.spec.holes import fill, holes
from blockforge.spec.load import SpecLike, from_text, list_specs, load, parse
from blockforge.spec.model import Spec
from blockforge.spec.override import Overrides
from blockforge.spec.plan import Plan
from blockforge.spec.resolve import resolve
from blockforge.spec.scope import Ask
from blockforge.spec.values import Hole

__all__ = [
    "Ask",
    "Hole",
    "Overrides",
    "Plan",
    "Spec",
    "SpecLike",
    "fill",
    "from_text",
    "holes",
    "list_specs",
    "load",
    "parse",
    "resolve",
    "to_yaml",
]

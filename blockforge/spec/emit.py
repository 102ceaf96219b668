"""Spec -> YAML text that loads to the same spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from blockforge.spec.yaml.scalars import ScalarError, resolve

if TYPE_CHECKING:
    from blockforge.spec.model import Spec

SCHEMA_HEADER = "# yaml-language-server: $schema=schema.json\n"
_ORDER = ("blockforge", "name", "about")


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, with our reading of plain scalars: text that we would read as a number is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if _reads_as_text(value) else "'")


def _reads_as_text(value: str) -> bool:
    try:
        return isinstance(resolve(value), str)
    except ScalarError:
        return False


def _mapping(dumper: yaml.SafeDumper, value: dict[Any, Any]) -> yaml.MappingNode:
    """A hole of plain values stands on one line, as it is written by hand."""
    node = dumper.represent_mapping("tag:yaml.org,2002:map", value)
    if len(value) == 1 and str(next(iter(value))).startswith("$"):
        node.flow_style = node.flow_style or getattr(node.value[0][1], "flow_style", False)
    return node


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if exponent and "." not in mantissa:
        text = f"{mantissa}.0e{exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _float)
_Dumper.add_representer(dict, _mapping)


def to_yaml(spec: Spec, header: bool = True) -> str:
    """The spec as YAML. `header`: with the line by which editors find the schema."""
    tree = spec.tree
    ordered = {k: tree[k] for k in (*_ORDER, *(k for k in tree if k not in _ORDER)) if k in tree}
    return (SCHEMA_HEADER if header else "") + dump_yaml(ordered)


def dump_yaml(tree: Any) -> str:
    """Plain data as YAML that our loader reads as the same data."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)

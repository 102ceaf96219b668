"""The definitions of a spec, as the ops of its network may name them."""

from __future__ import annotations

from blockforge.blocks.compose.frame import Definition, Definitions
from blockforge.blocks.compose.written import freeze
from blockforge.spec.glossary import Glossary, has_params


def definitions_of(glossary: Glossary) -> Definitions:
    """A glossary's own definitions, and those of the files that it uses under the names they have there."""
    own = tuple(_definition(name, tree, (*glossary.path, name)) for name, tree in glossary.define.items())
    used = []
    for prefix, inner in glossary.used:
        home = definitions_of(inner)
        used += [(f"{prefix}.{d.name}" if prefix else d.name, d, home) for d in home.own]
    return Definitions(own, tuple(used))


def _definition(name: str, tree: object, path: tuple[str | int, ...]) -> Definition:
    if not has_params(tree):
        return Definition(name, (), freeze(tree, path), path)
    assert isinstance(tree, dict)
    params = tuple((k, freeze(v, (*path, "params", k))) for k, v in tree.get("params", {}).items())
    return Definition(name, params, freeze(tree["body"], (*path, "body")), path)

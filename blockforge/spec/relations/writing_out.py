"""Relations on computed values: `2 * w` for a `stages.1.dim` that is `$(2 * w)`, so that they are solved for `w`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blockforge.errors import Path
from blockforge.spec.expressions.folding import MAX_NODES
from blockforge.spec.expressions.tree import Node, count
from blockforge.spec.relations.lookup import start_of, within_reach
from blockforge.spec.values import Expr, Ref

_MAX_FOLLOWED = 10


def written_out(node: Node, tree: Mapping[str, Any]) -> Node:
    """A relation with what names stand for in place of those that stand for expressions of a lifted tree."""
    relation = _written_out(node, tree, 0)
    return relation if count(relation) <= MAX_NODES else node


def _written_out(node: Node, tree: Mapping[str, Any], followed: int) -> Node:
    if node.kind != "name":
        return replace(node, parts=tuple(_written_out(part, tree, followed) for part in node.parts))
    if followed > _MAX_FOLLOWED or (expr := _expression_at(tree, node.value)) is None:
        return node
    inner = _in_terms_of_paths(expr.node, tree, node.value)
    return node if inner is None else _written_out(inner, tree, followed + 1)


def _in_terms_of_paths(node: Node, tree: Mapping[str, Any], at: Path) -> Node | None:
    """An expression that stands at a path, with the paths of its names for them; None where one has none."""
    if node.kind != "name":
        parts = [_in_terms_of_paths(part, tree, at) for part in node.parts]
        return None if None in parts else replace(node, parts=tuple(part for part in parts if part is not None))
    name = node.value[0]
    *_, place = lets = within_reach(tree, at)
    given = next((let for let in lets if name in let), None)
    if given is None:
        return None
    if given is not place:
        own = ("let", name) if given is tree.get("let") else (*at[:2], "let", name)
        return replace(node, value=own)
    if name == "depth":
        return replace(node, value=(*at[:2], "depth"))
    return replace(node, kind="constant", value=place[name])


def _expression_at(tree: Mapping[str, Any], path: Path) -> Expr | None:
    """The expression that stands at a path whatever is chosen."""
    lets = within_reach(tree, path)
    value: Any = start_of(tree, path)
    for part in (*path, None):
        for _ in range(_MAX_FOLLOWED):
            if isinstance(value, Ref):
                value = next((let[value.name] for let in lets if value.name in let), None)
        if part is None:
            break
        if isinstance(value, dict):
            value = value.get(part)
        else:
            value = value[part] if isinstance(value, list) and isinstance(part, int) and part < len(value) else None
    return value if isinstance(value, Expr) else None

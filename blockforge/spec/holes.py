"""A spec with holes is a search space: list its holes, fill them, and write the result as an ordinary spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockforge.errors import Report
from blockforge.spec import patterns
from blockforge.spec.loader import Document
from blockforge.spec.model import Spec
from blockforge.spec.values import Hole, Ref, lift, plain, walk


def holes(spec: Spec) -> dict[str, Hole]:
    """Every hole of `spec` by name, those inside choices included, in the order they are written."""
    found: dict[str, Hole] = {}
    walk(lift(spec.tree, Report(spec.locs)), lambda v: found.setdefault(v.name, v) if isinstance(v, Hole) else None)
    return found


def fill(spec: Spec, answers: Mapping[str, Any], name: str | None = None) -> Spec:
    """`spec` with its holes filled from `answers` (name -> label or number), without what is then unused.

    Blocks that no layer names, and names that nothing refers to, are left out; so are their holes.
    """
    from blockforge.spec.load import parse

    tree = _fill(lift(spec.tree, Report(spec.locs)), answers)
    blocks = tree.get("blocks", {})
    used = {n for stage in tree["stages"] for n, _ in _names(stage.get("layers"), tree)}
    if used <= set(blocks):
        tree["blocks"] = {n: b for n, b in blocks.items() if n in used}
    _drop_unused_names(tree)
    if name is not None:
        tree["name"] = name
    return parse(Document(plain(tree), spec.locs))


def _fill(value: Any, answers: Mapping[str, Any]) -> Any:
    if isinstance(value, Hole):
        if value.kind != "choice":
            return answers.get(value.name, value.low)
        return _fill(value.option(answers.get(value.name, value.labels[0])), answers)
    if isinstance(value, dict):
        return {k: _fill(v, answers) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(v, answers) for v in value]
    return value


def _names(layers: Any, tree: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    while isinstance(layers, Ref):
        layers = tree.get("let", {}).get(layers.name)
    return patterns.names(layers) if isinstance(layers, str) else ()


def _drop_unused_names(tree: dict[str, Any]) -> None:
    """Leave in every `let` what something refers to, directly or through another name."""
    used: set[str] = set()
    lets: dict[str, list[Any]] = {}
    stages = [{k: v for k, v in s.items() if k != "let"} for s in tree["stages"]]
    for owner in (tree, *tree["stages"]):
        for key, value in owner.get("let", {}).items():
            lets.setdefault(key, []).append(value)

    def visit(value: Any) -> None:
        if isinstance(value, Ref) and value.name not in used:
            used.add(value.name)
            for given in lets.get(value.name, []):
                walk(given, visit)

    walk([{k: v for k, v in tree.items() if k not in ("let", "stages")}, stages], visit)
    for owner in (tree, *tree["stages"]):
        if "let" in owner:
            owner["let"] = {k: v for k, v in owner["let"].items() if k in used}
            if not owner["let"]:
                del owner["let"]

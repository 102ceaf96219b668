"""A spec with holes is a search space: list its holes, fill them, and get an ordinary spec."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from blockforge.errors import Diagnostic, Path, SpecError
from blockforge.spec import patterns
from blockforge.spec.glossary import Glossary, reached
from blockforge.spec.model import Spec
from blockforge.spec.values import Expr, Hole, Ref, all_values, names_in, plain
from blockforge.spec.yaml.loader import Document


def holes(spec: Spec) -> dict[str, Hole]:
    """Every hole of `spec` by name, those inside choices included, in the order they are written."""
    by_name: dict[str, Hole] = {}
    for value in all_values(spec.lifted):
        if isinstance(value, Hole):
            by_name.setdefault(value.name, value)
    return by_name


def fill(spec: Spec, answers: Mapping[str, Any], name: str | None = None) -> Spec:
    """`spec` with its holes filled, without what is then unused.

    Blocks that no layer names, definitions that nothing names, and names that nothing refers to, are left out; so
    are their holes. Any other hole without an answer takes its first choice or lowest value.

    Args:
        answers: hole name -> label of a choice, or number in the range.
        name: in place of the spec's own.
    Raises: SpecError for an answer that is no value of its hole.
    """
    from blockforge.spec.load import parse

    tree = fill_tree(spec.lifted, answers)
    tree.pop("require", None)  # it speaks of holes and names that are gone
    used = _used_blocks(tree)
    if "blocks" in tree and used is not None:
        tree["blocks"] = {n: b for n, b in tree["blocks"].items() if n in used}
    if used is not None:
        tree = without_unused_definitions(tree, used)
    _drop_unused_names(tree)
    if name is not None:
        tree["name"] = name
    return parse(Document(plain(tree), spec.locs))


def fill_tree(value: Any, answers: Mapping[str, Any]) -> Any:
    """A lifted tree with its holes filled; see `fill`. Raises: SpecError for an answer that is no value of its hole."""
    if isinstance(value, Hole):
        answer = answers.get(value.name, value.labels[0] if value.labels else value.low)
        if answer not in value:
            text = f"{answer!r} is not a value of the hole '{value.name}'"
            raise SpecError([Diagnostic("hole", text, value.written, hint=f"its values: {value.values()}")])
        return fill_tree(value.options[value.index(answer)], answers) if value.kind == "choice" else answer
    if isinstance(value, dict):
        return {k: fill_tree(v, answers) for k, v in value.items()}
    if isinstance(value, list):
        return [fill_tree(v, answers) for v in value]
    return value


def _used_blocks(tree: dict[str, Any]) -> set[str] | None:
    """The blocks that some stage's layers name; None where layers are computed, and so name any."""
    shared = tree.get("let", {})
    used: set[str] = set()
    for stage in tree["stages"]:
        stage = _given(stage, [shared])
        lets = [stage["let"], shared] if isinstance(stage, dict) and "let" in stage else [shared]
        layers = _given(stage.get("layers"), lets) if isinstance(stage, dict) else None
        items = [_given(item, lets) for item in layers] if isinstance(layers, list) else [layers]
        if any(isinstance(value, Expr) for value in (stage, *items)):
            return None
        for pattern in items:
            used.update(_names(pattern) if isinstance(pattern, str) else ())
    return used


def without_unused_definitions(tree: dict[str, Any], layers: Collection[str]) -> dict[str, Any]:
    """The tree of a spec with the definitions alone that it may use.

    Args:
        layers: names in layer patterns. Files in which nothing is used keep their places in `use`.
    """
    network = [*layers, *(v for k, v in tree.items() if k not in ("define", "use", "about"))]
    kept = reached(Glossary.of(tree), network, lambda definition, _: definition)

    def without(part: dict[str, Any], path: Path) -> dict[str, Any]:
        define = {n: d for n, d in part.get("define", {}).items() if (*path, "define", n) in kept}
        use = [without(item, (*path, "use", i)) for i, item in enumerate(part.get("use", ()))]
        rest = {k: v for k, v in part.items() if k not in ("define", "use")}
        any_used = any(use)
        if path and not define and not any_used:
            return {}
        return {**rest, **({"define": define} if define else {}), **({"use": use} if any_used else {})}

    return without(tree, ())


def _names(pattern: str) -> list[str]:
    """The names in a pattern; of a malformed one none, which compiling the spec will say."""
    try:
        return [name for name, _ in patterns.names(pattern)]
    except patterns.PatternError:
        return []


def _given(value: Any, lets: list[dict[str, Any]]) -> Any:
    """What a reference stands for; `lets` are looked through in order."""
    for _ in range(100):  # a name may stand for a name; one that stands for itself is told when compiling
        if not isinstance(value, Ref):
            break
        value = next((let[value.name] for let in lets if value.name in let), None)
    return value


def _drop_unused_names(tree: dict[str, Any]) -> None:
    """Leave in every `let` what something refers to, directly or through another name."""
    owners = [tree, *(s for s in tree["stages"] if isinstance(s, dict))]
    given: dict[str, list[Any]] = {}
    for owner in owners:
        for key, value in owner.get("let", {}).items():
            given.setdefault(key, []).append(value)
    used: set[str] = set()
    todo = [
        {k: v for k, v in owner.items() if k not in ("let", "stages", "about", "define", "use")} for owner in owners
    ]
    todo += [s for s in tree["stages"] if not isinstance(s, dict)]

    while todo:
        for value in all_values(todo.pop()):
            for name in names_in(value) - used:
                used.add(name)
                todo.extend(given.get(name, []))
    for owner in owners:
        if "let" in owner:
            owner["let"] = {k: v for k, v in owner["let"].items() if k in used}
            if not owner["let"]:
                del owner["let"]

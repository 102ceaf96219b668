"""`require`: relations between the values of a spec, checked once its holes are filled and before it is compiled.

A name in a relation is a path of the spec, or a name that the spec's `let` gives. A value that a candidate does
not have (the stride of connections that were not chosen) leaves its relation without a say: it holds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Path, Report, did_you_mean
from blockforge.spec.references import label_of
from blockforge.spec.relations import expressions
from blockforge.spec.relations.expressions import AbsentError, ExpressionError, LookUp, Node
from blockforge.spec.reporting import NOWHERE, inside, report_at
from blockforge.spec.values import Hole, Ref, walk

_Options = Callable[[Hole], list[Any]]


@dataclass(frozen=True, slots=True)
class Violation:
    """A relation that a candidate breaks.

    Attributes:
        index: which one, as in `require[0]`.
        text: the part of it that fails.
        by: how far, above 0; see `expressions.excess`.
        values: what its names stand for, `stages.0.dim is 96, stages.1.dim is 64`.
    """

    index: int
    text: str
    by: float
    values: str
    column: int
    length: int


def check_relations(tree: Any, report: Report) -> None:
    """Report each relation of a lifted tree that cannot be read, or names what there is not."""
    relations = tree.get("require", []) if isinstance(tree, dict) else []
    for i, text in enumerate(relations if isinstance(relations, list) else []):
        if not isinstance(text, str):
            continue  # the schema says what it should be
        try:
            for name in expressions.names(expressions.parse(text)):
                if next(at(tree, name.value, _every_option), None) is None:
                    shown = text[name.column : name.column + name.length]
                    hint = did_you_mean(shown.removeprefix("$"), _known(tree), what="holes and names")
                    raise ExpressionError(f"nothing is named '{shown}'", name.column, name.length, hint)
        except ExpressionError as e:
            _report(report, "relation", str(e), i, text, e.column, e.length, e.hint)


def violations(tree: Mapping[str, Any], answers: Mapping[str, Any]) -> list[Violation]:
    """The relations of a lifted tree that its holes' `answers` break.

    Raises: ExpressionError where one cannot be computed, with `index` of the relation.
    """
    look_up = functools.partial(value_at, tree, answers)
    found = []
    for i, text in enumerate(tree.get("require", ())):
        try:
            node = expressions.parse(text)
            if not (by := expressions.excess(node, look_up)):
                continue
            part = expressions.failing(node, look_up)
            shown = text[part.column : part.column + part.length]
            found.append(Violation(i, shown, by, _said(part, text, look_up), part.column, part.length))
        except AbsentError:
            continue
        except ExpressionError as e:
            e.index = i
            raise
    return found


def report_violations(tree: Mapping[str, Any], answers: Mapping[str, Any], report: Report) -> None:
    """Report the relations that are broken."""
    texts = tree.get("require", ())
    try:
        for v in violations(tree, answers):
            hint = "change one of the values, or the relation"
            message = f"{v.text} does not hold: {v.values}"
            _report(report, "require", message, v.index, texts[v.index], v.column, v.length, hint)
    except ExpressionError as e:
        _report(report, "require", str(e), e.index, texts[e.index], e.column, e.length, e.hint)


def _report(
    report: Report, code: str, message: str, index: int, text: str, column: int, length: int, hint: str
) -> None:
    within = functools.partial(inside, text=text, column=column, length=length)
    report_at(report, NOWHERE, code, message, ("require", index), hint=hint, within=within)


def _said(node: Node, text: str, look_up: LookUp) -> str:
    """What the names in a part stand for."""
    known: dict[str, str] = {}
    for name in expressions.names(node):
        try:
            value = look_up(name.value)
        except AbsentError:
            continue
        known[text[name.column : name.column + name.length]] = str(value).lower() if value is True else str(value)
    return ", ".join(f"{name} is {value}" for name, value in known.items()) or "it names no value"


def value_at(tree: Mapping[str, Any], answers: Mapping[str, Any], path: Path) -> Any:
    """What stands at a path once holes are filled; of a mapping or list its label."""

    def chosen(hole: Hole) -> list[Any]:
        if hole.name not in answers:
            return []
        answer = answers[hole.name]
        return [hole.options[hole.index(answer)] if hole.kind == "choice" else answer]

    for value in at(tree, path, chosen):
        return "none" if value is None else label_of(value)
    raise AbsentError


def at(tree: Mapping[str, Any], path: Path, options: _Options) -> Iterator[Any]:
    """All that may stand at a path of a lifted tree, or at that of a name in its `let`."""
    shared = tree.get("let")
    lets = [shared] if isinstance(shared, dict) else []
    start: Any = tree
    if len(path) == 1 and lets and path[0] in lets[0]:
        start = lets[0]
    elif len(path) > 1 and path[0] == "stages":
        own = next((s.get("let") for s in _items(tree.get("stages"), path[1]) if isinstance(s, dict)), None)
        lets = [own, *lets] if isinstance(own, dict) else lets
    yield from _below(start, path, lets, options, 0)


def _below(value: Any, path: Path, lets: list[dict[str, Any]], options: _Options, followed: int) -> Iterator[Any]:
    if isinstance(value, Ref):
        given = next((let[value.name] for let in lets if value.name in let), None)
        if given is not None and followed < expressions.MAX_NESTING:
            yield from _below(given, path, lets, options, followed + 1)
    elif isinstance(value, Hole):
        for option in options(value):
            yield from _below(option, path, lets, options, followed)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _below(value[path[0]], path[1:], lets, options, followed)
    for item in _items(value, path[0]) if path else ():
        yield from _below(item, path[1:], lets, options, followed)


def _items(value: Any, index: int | str) -> list[Any]:
    """The item of a list at an index, if there is one."""
    return value[index : index + 1] if isinstance(value, list) and isinstance(index, int) else []


def _every_option(hole: Hole) -> list[Any]:
    return list(hole.options) if hole.kind == "choice" else [hole.low]


def _known(tree: Any) -> set[str]:
    """What a relation may name: holes and keys of stages by path, and the spec's names."""
    found: set[str] = set()

    def visit(value: Any) -> None:
        if isinstance(value, Hole):
            found.add(".".join(map(str, value.path)).removeprefix("let."))

    walk(tree, visit)
    shared, stages = tree.get("let"), tree.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else ()):
        found |= {f"stages.{i}.{key}" for key in stage if key != "let"} if isinstance(stage, dict) else set()
    return found | set(shared if isinstance(shared, dict) else ())

"""`require`: relations between the values of a spec, checked once its holes are filled and before it is compiled.

A name in a relation is a path of the spec, or a name that the spec's `let` gives. A value that a candidate does
not have (the stride of connections that were not chosen) leaves its relation without a say: it holds.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.errors import Report
from blockforge.spec.expressions.evaluation import excess, failing
from blockforge.spec.expressions.foreign import known_names
from blockforge.spec.expressions.parser import parse
from blockforge.spec.expressions.tree import AbsentError, ExpressionError, LookUp, Node, names
from blockforge.spec.relations.lookup import all_at, every_option, value_at
from blockforge.spec.reporting import NOWHERE, inside, report_at
from blockforge.spec.values import Hole, all_values


@dataclass(frozen=True, slots=True)
class Violation:
    """A relation that a candidate breaks.

    Attributes:
        index: which one, as in `require[0]`.
        text: the part of it that fails.
        by: how far, above 0; see `excess`.
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
            for name in names(parse(text)):
                if next(all_at(tree, name.value, every_option), None) is None:
                    shown = text[name.column : name.column + name.length]
                    hint = known_names(shown.removeprefix("$"), _known(tree), "holes and names")
                    raise ExpressionError(f"nothing is named '{shown}'", name.column, name.length, hint)
        except ExpressionError as e:
            _report(report, "relation", str(e), i, text, e.column, e.length, e.hint)


def violations(tree: Mapping[str, Any], answers: Mapping[str, Any]) -> list[Violation]:
    """The relations of a lifted tree that its holes' `answers` break.

    Raises: ExpressionError where one cannot be computed, with `index` of the relation.
    """
    look_up = functools.partial(value_at, tree, answers)
    broken = []
    for i, text in enumerate(tree.get("require", ())):
        try:
            node = parse(text)
            if not (by := excess(node, look_up)):
                continue
            part = failing(node, look_up)
            shown = text[part.column : part.column + part.length]
            broken.append(Violation(i, shown, by, _values_of(part, text, look_up), part.column, part.length))
        except AbsentError:
            continue
        except ExpressionError as e:
            e.index = i
            raise
    return broken


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


def _values_of(node: Node, text: str, look_up: LookUp) -> str:
    """What the names in a part stand for."""
    known: dict[str, str] = {}
    for name in names(node):
        try:
            value = look_up(name.value)
        except AbsentError:
            continue
        known[text[name.column : name.column + name.length]] = str(value).lower() if value is True else str(value)
    return ", ".join(f"{name} is {value}" for name, value in known.items()) or "it names no value"


def _known(tree: Any) -> set[str]:
    """What a relation may name: holes and keys of stages by path, and the spec's names."""
    met = [value for value in all_values(tree) if isinstance(value, Hole)]
    known = {".".join(map(str, hole.path)).removeprefix("let.") for hole in met}
    shared, stages = tree.get("let"), tree.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else ()):
        known |= {f"stages.{i}.{key}" for key in stage if key != "let"} if isinstance(stage, dict) else set()
    return known | set(shared if isinstance(shared, dict) else ())

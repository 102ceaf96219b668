"""Unknown `$name`s, found when a spec is read: those in parts that no layer uses are mistakes too."""

from __future__ import annotations

import functools
from typing import Any

from blockforge.errors import Path, Report
from blockforge.spec.expressions.foreign import known_names
from blockforge.spec.expressions.tree import names
from blockforge.spec.reporting import NOWHERE, inside, report_at
from blockforge.spec.values import EARLY, LATE, Expr, Ref, all_values


def check_names(tree: Any, report: Report) -> None:
    """Report each name in a lifted tree that neither a `let` within reach nor a place gives."""
    if not isinstance(tree, dict):
        return
    shared = _given(tree)
    anywhere = {name for value in all_values(tree) for name in _given(value)}
    stages = tree.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        # a stage that is chosen or named brings its own names with it
        _check(stage, shared | _given(stage) if isinstance(stage, dict) else anywhere, report, ("stages", i))
    for key, part in tree.items():
        if key not in ("stages", "define", "use"):  # definitions do not see what `let` gives
            # what stands outside the stages may be used inside one, with the stage's own names
            known = anywhere if key in ("blocks", "defaults", "downsample", "let") else shared
            _check(part, known, report, (key,))


def _given(tree: Any) -> set[str]:
    """The names that a mapping's own `let` gives."""
    let = tree.get("let") if isinstance(tree, dict) else None
    return {str(name) for name in let} if isinstance(let, dict) else set()


def _check(tree: Any, known: set[str], report: Report, path: Path) -> None:
    for value in all_values(tree):
        if isinstance(value, Ref) and value.name not in known and value.name not in (*EARLY, *LATE):
            hint = known_names(value.name, known, "names")
            _unknown(value.name, hint, report, value.written or path)
        for name in names(value.node) if isinstance(value, Expr) else ():
            if name.value[0] not in known and name.value[0] not in (*EARLY, *LATE):
                hint = known_names(name.value[0], known.union(EARLY, LATE), "names")
                within = functools.partial(inside, text=value.text, column=name.column, length=name.length)
                _unknown(name.value[0], hint, report, value.written or path, within)


def _unknown(name: str, hint: str, report: Report, path: Path, within: Any = None) -> None:
    report_at(report, NOWHERE, "unknown-name", f"no let gives ${name}", path, hint=hint, within=within)

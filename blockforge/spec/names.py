"""Unknown `$name`s, found when a spec is read: those in parts that no layer uses are mistakes too."""

from __future__ import annotations

from typing import Any

from blockforge.errors import Path, Report, did_you_mean
from blockforge.spec.reporting import NOWHERE, report_at
from blockforge.spec.values import Ref, all_values


def check_names(tree: Any, report: Report) -> None:
    """Report each reference of a lifted tree that no `let` within reach gives."""
    if not isinstance(tree, dict):
        return
    shared = _given(tree)
    anywhere = {name for value in all_values(tree) for name in _given(value)}
    stages = tree.get("stages")
    for i, stage in enumerate(stages if isinstance(stages, list) else []):
        # a stage that is chosen or named brings its own names with it
        _check(stage, shared | _given(stage) if isinstance(stage, dict) else anywhere, report, ("stages", i))
    for key, part in tree.items():
        if key != "stages":
            # what stands outside the stages may be used inside one, with the stage's own names
            known = anywhere if key in ("blocks", "defaults", "downsample", "let") else shared
            _check(part, known, report, (key,))


def _given(tree: Any) -> set[str]:
    """The names that a mapping's own `let` gives."""
    let = tree.get("let") if isinstance(tree, dict) else None
    return {str(name) for name in let} if isinstance(let, dict) else set()


def _check(tree: Any, known: set[str], report: Report, path: Path) -> None:
    for ref in (v for v in all_values(tree) if isinstance(v, Ref) and v.name not in known):
        hint = did_you_mean(ref.name, known, what="names")
        report_at(report, NOWHERE, "unknown-name", f"no let gives ${ref.name}", ref.written or path, hint=hint)

"""A document's plain tree -> a lifted one: `$name`, `$(...)`, `{$choice: ...}` as `Ref`, `Expr`, `Hole` objects."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from blockforge.errors import Path, Report, did_you_mean
from blockforge.spec import pattern_names
from blockforge.spec.expressions.brackets import closing
from blockforge.spec.expressions.tree import EXAMPLE, ExpressionError
from blockforge.spec.fields import NAME
from blockforge.spec.reporting import inside
from blockforge.spec.values import BROKEN, Expr, Hole, HoleKind, Ref, all_values, plain
from blockforge.spec.yaml.scalars import shorten
from blockforge.spec.yaml.syntax_errors import cut_expression

MAX_CHOICES = 1000
MAX_KEYS = 256
"""Of one mapping. Bounds what a did-you-mean has to look through."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLES: dict[str, str] = {
    "choice": "{$choice: [2, 4, 8]}",
    "int": "{$int: [1, 4]} or, with a step, {$int: [64, 256, 32]}",
    "float": "{$float: [0.0, 0.5]}",
    "log": "{$log: [1.0e-5, 1.0e-2]}",
}
_EXPRESSION_HINT = "as in $(2 * w), or: $(8 if layer == 0 else sizes[stage])"
_KINDS: dict[str, HoleKind] = {"$choice": "choice", "$int": "int", "$float": "float", "$log": "log"}
_PLAIN: tuple[Path, ...] = (("about",), ("require",))
"""Notes for people and relations: nothing in them is a reference or a hole."""


def lift(tree: Any, report: Report, path: Path = (), written: Path | None = None) -> Any:
    """`tree` with references, expressions and holes as objects; malformed ones are reported.

    Args:
        path: what `tree` is the value of.
        written: where it stands in the document, if that differs: an option stands inside its hole.
    """
    at = path if written is None else written
    if path in _PLAIN and isinstance(tree, dict | list):
        return tree
    if isinstance(tree, dict):
        if len(tree) > MAX_KEYS:
            report.error("limit", f"{len(tree)} keys in one mapping; {MAX_KEYS} are allowed", at, hint="leave some out")
            report.close()
        if any(isinstance(k, str) and k.startswith("$") for k in tree):
            return _hole(tree, report, path, at)
        return {k: lift(v, report, (*path, k), (*at, k)) for k, v in tree.items()}
    if isinstance(tree, list):
        return [lift(v, report, (*path, i), (*at, i)) for i, v in enumerate(tree)]
    if isinstance(tree, str) and "$" in tree and pattern_names.stands_at(path) and not pattern_names.is_whole(tree):
        return _read(tree, pattern_names.read, report, at)
    if isinstance(tree, str) and tree.startswith("$("):
        return _expression(tree, report, at)
    if isinstance(tree, str) and tree.startswith("$"):
        if not _NAME.fullmatch(tree[1:]):
            hint = "a reference is $ and a name from let: letters, digits and _, as in $num_heads"
            report.error("reference", f"'{shorten(tree)}' is not a reference", at, hint=hint)
            return BROKEN
        return Ref(tree[1:], at)
    return tree


def _expression(text: str, report: Report, at: Path) -> Expr | Hole:
    loc = report.locs.value(at)
    end = closing(text)
    if end is None:
        if loc and (cut := cut_expression(loc.source, loc.line - 1, loc.column - 1 + len(text), at)):
            report.found.append(cut)
            report.close()  # what comes of the rest is no mistake of its own
        report.error("expression", "'$(' is never closed", at, hint="close it with ')'", loc=loc)
        return BROKEN
    if end + 1 < len(text):
        hint = "an expression is the whole value, as in $(2 * a + b)"
        place = inside(loc, text, end + 1, len(text) - end - 1)
        report.error("expression", "text after the expression", at, hint=hint, loc=place)
        return BROKEN
    return _read(text, Expr.read, report, at)


def _read(text: str, read: Callable[[str, Path], Expr], report: Report, at: Path) -> Expr | Hole:
    try:
        return read(text, at)
    except ExpressionError as e:
        hint = _EXPRESSION_HINT if e.hint == EXAMPLE else e.hint
        loc = inside(report.locs.value(at), text, e.column, e.length)
        report.error("expression", str(e), at, hint=hint, loc=loc)
        return BROKEN


def _hole(tree: dict[Any, Any], report: Report, path: Path, at: Path) -> Hole:
    key, args = next((k, v) for k, v in tree.items() if isinstance(k, str) and k.startswith("$"))
    if key not in _KINDS:
        hint = did_you_mean(key, _KINDS, what="holes") + "; a reference is a value: key: $name"
        report.error("hole", f"no hole named '{shorten(key)}'", (*at, key), hint=hint, on_key=True)
        return BROKEN
    if len(tree) > 1:
        extra = next(k for k in tree if k != key)
        hint = "a hole stands alone in its mapping; move the other key out, or into its choices"
        report.error("hole", f"'{extra}' stands beside '{key}'", (*at, extra), hint=hint, on_key=True)
    kind = _KINDS[key]
    if kind == "choice":
        return _choice(args, report, path, at)
    return _range(kind, args, report, path, at)


def _choice(args: Any, report: Report, path: Path, at: Path) -> Hole:
    inside = (*at, "$choice")
    if not isinstance(args, list | dict) or not 1 <= len(args) <= MAX_CHOICES:
        text = f"$choice needs a list of 1 to {MAX_CHOICES} values"
        report.error("hole", text, inside, hint=f"as in {_EXAMPLES['choice']}")
        return BROKEN
    if isinstance(args, dict):
        return _named_choice(args, report, path, at)
    labels = _labels(args)
    first: dict[Any, int] = {}
    for i, label in enumerate(labels):
        # True equals 1 here: samplers look choices up with ==
        if first.setdefault(label, i) != i:
            other = "" if str(label) == str(labels[first[label]]) else f" (it equals {labels[first[label]]!r})"
            hint = "every choice must differ; leave one out"
            report.error("hole", f"$choice lists {label!r} twice{other}", (*inside, i), hint=hint)
    options = [lift(option, report, path, (*inside, i)) for i, option in enumerate(args)]
    return _told_apart(Hole("choice", path, tuple(options), labels, written=at))


def _named_choice(args: dict[Any, Any], report: Report, path: Path, at: Path) -> Hole:
    """Choices that are written under names of their own."""
    inside = (*at, "$choice")
    for name in args:
        if not isinstance(name, str) or not re.fullmatch(NAME, name):
            hint = "letters, digits, _ and -, as in {$choice: {small: 2, large: 4}}"
            report.error("hole", f"'{shorten(str(name))}' names no choice", (*inside, name), hint=hint, on_key=True)
            return BROKEN
    options = tuple(lift(option, report, path, (*inside, name)) for name, option in args.items())
    return _told_apart(Hole("choice", path, options, tuple(args), named=True, written=at))


def _told_apart(hole: Hole) -> Hole:
    """A choice whose options hold no two holes of one name."""
    if not _clash(hole):
        return hole
    pairs = zip(hole.options, hole.labels, strict=True)
    return dataclasses.replace(hole, options=tuple(_rename(o, f"@{label}") for o, label in pairs))


def _range(kind: HoleKind, args: Any, report: Report, path: Path, at: Path) -> Hole:
    inside, hint = (*at, f"${kind}"), f"as in {_EXAMPLES[kind]}"
    number: Any = int if kind == "int" else int | float
    if (
        not isinstance(args, list)
        or len(args) not in ((2, 3) if kind == "int" else (2,))
        or not all(isinstance(a, number) and not isinstance(a, bool) and abs(a) < 1e15 for a in args)
    ):
        what = "two or three whole numbers, [low, high, step]" if kind == "int" else "two numbers, [low, high]"
        report.error("hole", f"${kind} needs {what}", inside, hint=hint)
        return BROKEN
    low, high, step = args[0], args[1], args[2] if len(args) == 3 else 1
    wrong = None
    if low > high:
        wrong = f"low {low} is above high {high}"
    elif step < 1:
        wrong = f"step {step} is below 1"
    elif kind == "int" and (high - low) % step:
        last = high - (high - low) % step
        wrong, hint = (
            f"steps of {step} do not lead from {low} to {high}",
            f"high {last} or {last + step} would do",
        )
    elif kind == "log" and low <= 0:
        wrong = f"low {low} is not above 0, as a logarithmic range needs"
    if wrong:
        report.error("hole", f"${kind}: {wrong}", inside, hint=hint)
        return BROKEN
    return Hole(kind, path, low=low, high=high, step=step, written=at)


def _clash(hole: Hole) -> bool:
    """Whether two of its options hold different holes under one name, or one takes the hole's own.

    Samplers know a hole by its name alone, so one name must never stand for two ranges.
    """
    known: dict[str, Any] = {hole.name: None}
    for option in hole.options:
        for inner in (value for value in all_values(option) if isinstance(value, Hole)):
            tree = inner.tree()
            if known.setdefault(inner.name, tree) != tree:
                return True
    return False


def _rename(value: Any, suffix: str) -> Any:
    """`value` with `suffix` before the suffix of each hole in it."""
    if isinstance(value, Hole):
        options = tuple(_rename(o, suffix) for o in value.options)
        return dataclasses.replace(value, options=options, suffix=suffix + value.suffix)
    if isinstance(value, dict):
        return {k: _rename(v, suffix) for k, v in value.items()}
    if isinstance(value, list):
        return [_rename(v, suffix) for v in value]
    return value


def _labels(options: list[Any]) -> tuple[Any, ...]:
    """Scalar labels: a scalar is its own; a mapping is called after its op or rule, numbered if need be."""
    taken = {o for o in options if not isinstance(o, dict | list)}
    labels: list[Any] = []
    for i, option in enumerate(options):
        label = option
        if isinstance(option, dict | list):
            label = _label(option)
            while label in taken:
                label = f"{label}#{i}"
            taken.add(label)
        labels.append(label)
    return tuple(labels)


def label_of(value: Any) -> Any:
    """The scalar that stands for a value of a lifted tree: a scalar is its own."""
    return _label(plain(value)) if isinstance(value, dict | list) else value


def _label(option: dict[Any, Any] | list[Any]) -> str:
    if isinstance(option, dict):
        name = next((option[k] for k in ("op", "rule") if isinstance(option.get(k), str)), None)
        name = name or next((str(k)[1:] for k in option if str(k) in _KINDS), None)
        return name or "{" + ", ".join(f"{k}: {plain(v)}" for k, v in option.items())[:60] + "}"
    return "[" + ", ".join(str(plain(v)) for v in option)[:60] + "]"

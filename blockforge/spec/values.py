"""The two things that may stand in place of any value: a reference `$name` and a hole `{$choice: [...]}`.

`lift` turns the plain tree of a document into one where both are objects; everything behind it works on
lifted trees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from blockforge.errors import Path, Report, did_you_mean

HoleKind = Literal["choice", "int", "float", "log"]
_KINDS: tuple[HoleKind, ...] = ("choice", "int", "float", "log")
MAX_CHOICES = 1000


@dataclass(frozen=True, slots=True)
class Ref:
    """`$name`: the value that `let` gives to the name."""

    name: str

    def __str__(self) -> str:
        return f"${self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Hole:
    """A value that the search fills.

    Attributes:
        kind: `choice` of `options`; `int` or `float` in [low, high]; `log`, a float on a logarithmic scale.
        path: where it stands; `name` is the same as text and is what Optuna sees.
        options: the choices, which may hold references and further holes.
        labels: one scalar for each choice, all different.
        step: distance between neighbours of an `int`.
    """

    kind: HoleKind
    path: Path
    options: tuple[Any, ...] = ()
    labels: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    step: int = 1
    suffix: str = ""

    @property
    def name(self) -> str:
        return ".".join(str(p) for p in self.path) + self.suffix

    def option(self, label: Any) -> Any:
        """The choice behind a label."""
        return self.options[next(i for i, known in enumerate(self.labels) if _same(known, label))]

    def __contains__(self, value: Any) -> bool:
        if self.kind == "choice":
            return any(_same(label, value) for label in self.labels)
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.kind != "int" or (isinstance(value, int) and (value - int(self.low)) % self.step == 0)

    def tree(self) -> dict[str, Any]:
        """The hole as it is written in a spec."""
        if self.kind == "choice":
            return {"$choice": [plain(o) for o in self.options]}
        if self.kind == "int" and self.step != 1:
            return {"$int": [self.low, self.high, self.step]}
        return {f"${self.kind}": [self.low, self.high]}


def lift(tree: Any, report: Report, path: Path = (), suffix: str = "") -> Any:
    """`tree` with `Ref` and `Hole` objects in place of `$name` and `{$choice: ...}`; reports malformed ones."""
    if isinstance(tree, dict):
        if any(isinstance(k, str) and k.startswith("$") for k in tree):
            return _hole(tree, report, path, suffix)
        return {k: lift(v, report, (*path, k), suffix) for k, v in tree.items()}
    if isinstance(tree, list):
        return [lift(v, report, (*path, i), suffix) for i, v in enumerate(tree)]
    if isinstance(tree, str) and tree.startswith("$"):
        if not tree[1:].isidentifier():
            report.error("reference", f"'{tree}' is not a reference", path, hint="write $name, with a name from let")
        return Ref(tree[1:])
    return tree


def plain(value: Any) -> Any:
    """The tree that `lift` would turn into `value`."""
    if isinstance(value, Ref):
        return str(value)
    if isinstance(value, Hole):
        return value.tree()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def walk(value: Any, visit: Callable[[Any], None]) -> None:
    """Call `visit` on every value of a lifted tree, the options of holes included."""
    visit(value)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for child in value.options if isinstance(value, Hole) else children:
        walk(child, visit)


def _hole(tree: dict[Any, Any], report: Report, path: Path, suffix: str) -> Any:
    key, args = next((k, v) for k, v in tree.items() if isinstance(k, str) and k.startswith("$"))
    kind = next((k for k in _KINDS if key == f"${k}"), None)
    if kind is None:
        hint = did_you_mean(key, [f"${k}" for k in _KINDS], what="holes")
        report.error("hole", f"no hole named '{key}'", (*path, key), hint=hint, on_key=True)
        return None
    if len(tree) > 1:
        extra = next(k for k in tree if k != key)
        report.error("hole", f"a hole has one key; '{extra}' stands beside '{key}'", (*path, extra), on_key=True)
    make = _choice if kind == "choice" else _range
    return make(kind, args, report, (*path, key), path, suffix)


def _choice(kind: HoleKind, args: Any, report: Report, at: Path, path: Path, suffix: str) -> Any:
    if not isinstance(args, list) or not 1 <= len(args) <= MAX_CHOICES:
        report.error("hole", f"$choice needs a list of 1 to {MAX_CHOICES} values", at, hint="{$choice: [2, 4, 8]}")
        return None
    labels = _labels(args)
    for i, label in enumerate(labels):
        if any(_same(label, before) for before in labels[:i]):
            report.error("hole", f"$choice lists {label!r} twice", (*at, i), hint="every choice must differ")
    # A hole inside a choice is named by its own path; where two choices hold different holes at one path,
    # each carries its choice's label, so that Optuna never sees two ranges under one name.
    shared = [_inner_holes(option, path) for option in args]
    clash = any(a.get(n, h) != h for i, a in enumerate(shared) for b in shared[:i] for n, h in b.items())
    options = []
    for i, option in enumerate(args):
        inner = Report(report.locs)
        options.append(lift(option, inner, path, f"{suffix}@{labels[i]}" if clash else suffix))
        report.found += [_inside_choice(d, report, at, i, len(path)) for d in inner.found]
    return Hole(kind, path, tuple(options), labels, suffix=suffix)


def _inside_choice(d: Any, report: Report, at: Path, i: int, depth: int) -> Any:
    """A finding of an option, moved to where the option is written."""
    path = (*at, i, *d.path[depth:])
    return type(d)(d.code, d.message, path, report.locs.value(path), d.hint, d.severity, d.related)


def _range(kind: HoleKind, args: Any, report: Report, at: Path, path: Path, suffix: str) -> Any:
    example = {"int": "{$int: [64, 256, 32]}", "float": "{$float: [0.0, 0.5]}", "log": "{$log: [1.0e-5, 1.0e-2]}"}
    counts = (2, 3) if kind == "int" else (2,)
    number = int if kind == "int" else (int, float)
    if (
        not isinstance(args, list)
        or len(args) not in counts
        or not all(isinstance(a, number) and not isinstance(a, bool) and abs(a) < 1e15 for a in args)
    ):
        what = "two or three whole numbers, [low, high, step]" if kind == "int" else "two numbers, [low, high]"
        report.error("hole", f"${kind} needs {what}", at, hint=example[kind])
        return None
    low, high, step = args[0], args[1], args[2] if len(args) == 3 else 1
    wrong = None
    if low > high:
        wrong = f"low {low} is above high {high}"
    elif step < 1:
        wrong = f"step {step} is below 1"
    elif kind == "int" and (high - low) % step:
        wrong = f"step {step} does not lead from {low} to {high}; {high - (high - low) % step} would be the last"
    elif kind == "log" and low <= 0:
        wrong = f"low {low} is not above 0, as a logarithmic range needs"
    if wrong:
        report.error("hole", f"${kind}: {wrong}", at, hint=example[kind])
        return None
    return Hole(kind, path, low=low, high=high, step=step, suffix=suffix)


def _inner_holes(option: Any, path: Path) -> dict[str, Any]:
    """The holes that stand in a choice's option, by path, as plain trees."""
    found: dict[str, Any] = {}
    if isinstance(option, dict):
        if any(isinstance(k, str) and k.startswith("$") for k in option):
            return {str(path): option}
        for k, v in option.items():
            found |= _inner_holes(v, (*path, k))
    elif isinstance(option, list):
        for i, v in enumerate(option):
            found |= _inner_holes(v, (*path, i))
    return found


def _labels(options: list[Any]) -> tuple[Any, ...]:
    """Scalar labels: a scalar is its own, a mapping is called after its op or rule, numbered if need be."""
    labels: list[Any] = []
    for option in options:
        label = option
        if isinstance(option, dict):
            label = next((option[k] for k in ("op", "rule") if isinstance(option.get(k), str)), "mapping")
        elif isinstance(option, list):
            label = "[" + ", ".join(str(plain(v)) for v in option)[:60] + "]"
        elif option is None:
            label = "null"
        if isinstance(label, float) and math.isfinite(label) and label == int(label):
            label = float(label)
        if isinstance(option, dict | list) and any(_same(label, known) for known in labels):
            label = f"{label}#{len(labels)}"
        labels.append(label)
    return tuple(labels)


def _same(a: Any, b: Any) -> bool:
    """Equal, and not merely as True equals 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)

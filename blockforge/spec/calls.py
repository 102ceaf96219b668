"""What definitions say, whether a network uses them or not: their names, whom they call and with what."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from blockforge.errors import Path, Report
from blockforge.spec.expressions.foreign import constant, known_names
from blockforge.spec.expressions.tree import names
from blockforge.spec.forms import OP_KEYS, unknown_key
from blockforge.spec.glossary import REQUIRED, Definition, Glossary, has_params
from blockforge.spec.model import BranchSpec
from blockforge.spec.reporting import NOWHERE, inside, report_at
from blockforge.spec.values import EARLY, LATE, Expr, Hole, Ref, all_values, names_in

PLACE = (*LATE, *EARLY, "drop_path")
"""The names that every place gives to the definitions that stand there."""
_SLOTS = ("stem", "downsample", "blocks", "stage_norm", "head", "heads")
"""Keys of a spec with ops right below them."""


def check_definitions(tree: Any, report: Report) -> None:
    """Report what is wrong with the definitions of a lifted spec, and with the calls of them."""
    glossary = Glossary.of(tree)
    lets = {name for value in all_values(tree) if isinstance(value, dict) for name in _keys(value.get("let"))}
    ways: dict[Path, list[Definition]] = {}
    for part in glossary.all():
        _check_clashes(part, report)
        for name in part.define:
            definition = part.own(name)
            if name == "none":
                text, hint = "'none' is no op, and no name of one", "give it another name"
                report_at(report, NOWHERE, "name", text, definition.path, hint=hint, on_key=True)
            _check_names(definition, lets, report)
            ways[definition.path] = list(_called(definition, report))
    _check_cycles(ways, report)
    for key in tree.keys() - {"define", "use", "about", "require"}:
        for call in calls(tree[key], (key,), is_op=key in _SLOTS):
            if (called := glossary.find(call.name)) is not None:
                _check_call(call, called, tuple(BranchSpec.model_fields), report)


def warn_of_names(tree: Any, report: Report) -> None:
    """Warn of parameters that hide a name of the place, and of keys that a branch keeps from a definition."""
    glossary = Glossary.of(tree)
    for part in glossary.all():
        for definition in map(part.own, part.define):
            for name in definition.params:
                if name in PLACE:
                    text = f"parameter '{name}' hides what every place gives by this name"
                    report.warn("name", text, (*definition.path, "params", name), hint="give it another name")
    for block, branches in tree.get("blocks", {}).items():
        for i, branch in enumerate(branches if isinstance(branches, list) else ()):
            called = branch.get("op") if isinstance(branch, dict) else None
            callee = glossary.find(called) if isinstance(called, str) else None
            if callee is None:
                continue
            for key in BranchSpec.model_fields.keys() & callee.params.keys() & branch.keys():
                text = f"'{key}' is the branch's here, not the parameter of '{called}'"
                hint = f"for the parameter write op: [{{op: {called}, {key}: ...}}]"
                report.warn("key", text, ("blocks", block, i, key), hint=hint)


class Call(NamedTuple):
    """A name in an op's place, and what stands beside it."""

    name: str
    path: Path
    given: Mapping[str, Any]


def calls(value: Any, at: Path, is_op: bool = False, surely: bool = False) -> Iterator[Call]:
    """The named ops in a tree. A text is one in a list that is an op, in `of` and where `is_op` says so; under `from`
    it is the name of a map.

    Args:
        surely: without those in other parameters, which may be ops of a kind that only their block knows.
    """
    if isinstance(value, str) and is_op:
        yield Call(value, at, {})
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from calls(item, (*at, i), is_op, surely)
    elif isinstance(value, Hole):
        for i, option in enumerate(value.options):
            yield from calls(option, (*at, *value.way_to(i)), is_op, surely)
    elif isinstance(value, dict):
        is_call = isinstance(value.get("op"), str) and "from" not in value  # else an edge, with an op on it
        if is_call:
            yield Call(value["op"], at, value)
        has_members = is_op and value.keys().isdisjoint(("op", "from"))
        for key, item in value.items():
            is_inner = key in ("op", "of") or has_members
            if (key != "op" or not is_call) and (is_inner or key == "from" or not surely):
                yield from calls(item, (*at, key), is_inner, surely)


def _check_names(definition: Definition, lets: Collection[str], report: Report) -> None:
    """Report the names in a definition that neither its parameters nor its place give."""
    known: list[str] = []
    for name, default in definition.params.items():
        _check_known(default, known, definition, lets, report)
        if name in OP_KEYS:
            text = f"a parameter cannot be named '{name}', which is a key of every op"
            hint = "give it another name; $out is the width that dim asks for"
            report_at(report, NOWHERE, "define", text, (*definition.path, "params", name), hint=hint, on_key=True)
        known.append(name)
    _check_known(definition.body, known, definition, lets, report)


def _check_known(tree: Any, known: list[str], definition: Definition, lets: Collection[str], report: Report) -> None:
    for value in all_values(tree):
        uses: list[tuple[str, Any]] = [(value.name, None)] if isinstance(value, Ref) else []
        for node in names(value.node) if isinstance(value, Expr) else ():
            place = functools.partial(inside, text=value.text, column=node.column, length=node.length)
            uses.append((node.value[0], place))
        for name, within in uses:
            if name in known or name in PLACE:
                continue
            text, hint = (
                f"definition '{definition.name}' has no parameter ${name}",
                _hint(name, known, definition, lets),
            )
            _report_once(report, "unknown-name", text, value.written, hint, within)


def _hint(name: str, known: list[str], definition: Definition, lets: Collection[str]) -> str:
    if name in definition.params:
        return "a default may name the parameters before it"
    if name in lets:
        return f"definitions do not see what let gives: make it a parameter, and call with {name}: ${name}"
    near = known_names(name, (*known, *PLACE), "names here")
    if has_params(definition.glossary.define[definition.name]) or constant(name):
        return near
    return f"{near}; one of its own is a parameter: {{params: {{{name}: required}}, body: ...}}"


def _called(definition: Definition, report: Report) -> Iterator[Definition]:
    """The definitions that one calls; wrong calls are reported."""
    written = {"params": definition.params, "body": definition.body}
    at = {"params": (*definition.path, "params"), "body": definition.body_path}
    for key, tree in written.items():
        for call in calls(tree, at[key], is_op=key == "body"):
            if (callee := definition.glossary.find(call.name)) is not None:
                _check_call(call, callee, (), report)
                yield callee


def _check_call(call: Call, definition: Definition, more: Collection[str], report: Report) -> None:
    """Report what a call gives that the definition does not take, and the reverse. `more`: keys of the place."""
    for key in call.given:
        if key not in definition.params and key not in (*OP_KEYS, *more, *_missing(definition)):
            text, known = f"definition '{call.name}' has no parameter '{key}'", (*definition.params, *OP_KEYS)
            hint = unknown_key(str(key), known, "known here")
            _report_once(report, "unknown-key", text, (*call.path, key), hint, on_key=True)
    for name, default in definition.params.items():
        if default == REQUIRED and name not in call.given:
            hint = f"as in {{op: {call.name}, {name}: ...}}"
            _report_once(report, "missing-key", f"definition '{call.name}' needs '{name}'", call.path, hint)


def _missing(definition: Definition) -> set[str]:
    """The names that a definition reads and does not have: an error there, and none in calls that give them."""
    read = {name for value in all_values(definition.body) for name in names_in(value)}
    return read - {*definition.params, *PLACE}


def _check_clashes(glossary: Glossary, report: Report) -> None:
    """Report names that two files give which a document uses."""
    above = glossary.path[:-1]
    for i, (prefix, later) in enumerate(glossary.used):
        for other, earlier in glossary.used[:i]:
            both = [name for name in later.define if name in earlier.define] if prefix == other else []
            wrong = [name for name in both if prefix or name not in glossary.define]
            if not wrong or earlier == later:
                continue
            said = ", ".join(f"'{name}'" for name in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
            places = [report.locs.key((*lib.path, wrong[0])) for lib in (earlier, later)]
            related = [("given here", place) for place in places if place is not None]
            hint = f"give one of them a prefix, as in use: [std, {{m: lib.yaml}}], and write m.{wrong[0]}"
            text, path = f"two files that are used give {said}", (*above, "use", i)
            report_at(report, NOWHERE, "use", text, path, hint=hint, related=related)


def _check_cycles(ways: Mapping[Path, list[Definition]], report: Report) -> None:
    """Report definitions that lead back to themselves."""
    arrows = {path: {definition.path for definition in called} for path, called in ways.items()}
    while True:
        try:
            return TopologicalSorter(arrows).prepare()
        except CycleError as e:
            loop = e.args[1][::-1]  # from caller to called
            way = " -> ".join(str(path[-1]) for path in loop)
            text, hint = f"a definition leads back to itself: {way}", "leave out one of them"
            report_at(report, NOWHERE, "define-cycle", text, min(loop, key=str), hint=hint, on_key=True)
            arrows[loop[0]].discard(loop[1])


def _report_once(
    report: Report, code: str, text: str, path: Path, hint: str, within: Any = None, on_key: bool = False
) -> None:
    """A file that is used in two places has its mistakes once."""
    loc = report.locs.value(path)
    if not any(d.message == text and d.loc == loc for d in report.found):
        report_at(report, NOWHERE, code, text, path, hint=hint, within=within, on_key=on_key)


def _keys(value: Any) -> Collection[str]:
    return value if isinstance(value, dict) else ()

"""Checks a spec as far as that goes without tensors; of a search space, every option of every hole."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blockforge.compiler import compile_spec
from blockforge.compiler.candidates import compile_candidate
from blockforge.compiler.uncalled import wrong_calls
from blockforge.errors import Diagnostic, SpecError
from blockforge.spec import Hole, Overrides, Spec, SpecLike, holes
from blockforge.spec.glossary import Glossary
from blockforge.spec.load import Library, load_either
from blockforge.spec.relations.repair import relations_of

_OTHER_FILLINGS = 8
"""How often an option that fails beside the first values of all other holes is tried beside others."""


@dataclass
class Finding:
    """What a check of one spec found."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    figures: str = ""

    @property
    def ok(self) -> bool:
        return not any(d.severity == "error" for d in self.diagnostics)

    def __str__(self) -> str:
        errors = sum(d.severity == "error" for d in self.diagnostics)
        return f"ok ({self.figures})" if self.ok else f"{errors} error{'s' if errors > 1 else ''}"


def check_source(source: SpecLike, overrides: Overrides | None = None) -> Finding:
    """Compile a spec, or of a space enough candidates to meet every option of every hole; a file of definitions is read
    with those that it uses."""
    try:
        spec = load_either(source, overrides)
        if isinstance(spec, Library):
            return Finding(list(wrong_calls(*spec)), f"definitions: {', '.join(spec.glossary.define) or 'none'}")
        if holes(spec):
            return _Space(spec).run()
        arch = compile_spec(spec)
    except SpecError as e:
        return Finding(e.diagnostics)
    unused = [replace(d, severity="warning") for d in wrong_calls(Glossary.of(spec.lifted), spec.locs)]
    return Finding([*arch.warnings, *unused], arch.totals)


class _Space:
    """Walks a space: each option is tried on top of the filling in which its hole was first met."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.found: dict[str, Hole] = {}
        self.tried: set[tuple[str, str]] = set()
        self.rng = random.Random(0)
        self.errors: dict[tuple[Any, ...], Diagnostic] = {}
        self.excluded: list[tuple[dict[str, Any], SpecError]] = []
        """What relations leave no others for, as far as they were tried."""
        self.candidates = self.misfits = self.right = 0

    def run(self) -> Finding:
        queue: deque[tuple[dict[str, Any], dict[str, Any]]] = deque([({}, {})])
        while queue:
            answers, met = self.attempt(*queue.popleft())
            for hole in met:
                self.tried.add((hole.name, repr(answers.get(hole.name, _options(hole)[0]))))
            queue.extend(self.next_options(met, answers))
        figures = f"a space of {len(self.found)} holes, {self.candidates} candidates tried"
        if self.misfits:
            figures += f"; options that do not fit beside the first values of the others: {self.misfits}"
        if self.excluded:
            shown = ", ".join(_shown(answers) for answers, _ in self.excluded[:3])
            figures += f"; options for which no values that keep the relations were found: {shown}"
            figures += ", ..." if len(self.excluded) > 3 else ""
        return Finding([*self.errors.values(), *self.without_candidates()], figures)

    def without_candidates(self) -> list[Diagnostic]:
        """What is told where relations have refused everything that was tried: a proof, or that there is none."""
        if self.right or not self.excluded:
            return []
        first = self.excluded[0][1].diagnostics[0]
        if relations_of(self.spec).verdict() == "impossible":
            text = f"no values of the holes keep the relations together; one of them says: {first.message}"
        else:
            text = f"none of {self.candidates} candidates keeps the relations, which does not prove that none does"
        return [replace(first, message=text)]

    def next_options(self, met: list[Hole], answers: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Fillings for the options of holes that were not met before, and the options."""
        for hole in met:
            if hole.name in self.found:
                continue
            self.found[hole.name] = hole
            for option in _options(hole):
                if (hole.name, repr(option)) not in self.tried:
                    self.tried.add((hole.name, repr(option)))
                    yield {**answers, hole.name: option}, {hole.name: option}

    def attempt(self, answers: dict[str, Any], option: dict[str, Any]) -> tuple[dict[str, Any], list[Hole]]:
        """Compile a filling, the rest at first values; returns the answers used and the holes that were met.

        An option is wrong if no filling of the others makes it right: a width that some heads do not divide
        is a dead end of the space, not a mistake.
        """
        error, met, others = self.compile(answers, option, lambda options: options[0])
        if error is None:
            return {name: others.get(name, value) for name, value in answers.items()}, met
        for _ in range(_OTHER_FILLINGS):
            failed, others_met, others = self.compile(answers, option, self.rng.choice)
            if failed is None:
                self.misfits += 1
                return others, others_met
        if all(d.code == "require" for d in error.diagnostics):
            self.excluded.append((option, error))
            return answers, met
        chosen = ", ".join(f"{name}={value}" for name, value in answers.items())
        for d in error.diagnostics:
            message = f"{d.message} (with {chosen})" if chosen else d.message
            self.errors.setdefault((d.code, d.message, d.path), replace(d, message=message))
        return answers, met

    def compile(
        self, answers: dict[str, Any], option: dict[str, Any], otherwise: Callable[[list[Any]], Any]
    ) -> tuple[SpecError | None, list[Hole], dict[str, Any]]:
        """Compile with these answers, and for other holes what `otherwise` takes of their options.

        Returns the error, the holes that were met, and all answers.
        """
        met: list[Hole] = []
        given = dict(answers)

        def ask(hole: Hole) -> Any:
            met.append(hole)
            if hole.name not in given:
                given[hole.name] = otherwise(_options(hole))
            return given[hole.name]

        def mended(changed: Mapping[str, Any]) -> Callable[[Hole], Any]:
            met.clear()
            given.update(changed)
            return ask

        self.candidates += 1
        try:
            compile_candidate(self.spec, ask, option, mended)
        except SpecError as e:
            return e, met, given
        self.right += 1
        return None, met, given


def _shown(answers: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in list(answers.items())[-1:]) or "the first values of all holes"


def _options(hole: Hole) -> list[Any]:
    """Every choice; of a range, its ends."""
    return list(hole.labels) if hole.kind == "choice" else list(dict.fromkeys((hole.low, hole.high)))

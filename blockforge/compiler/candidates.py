"""A candidate of a search space: its holes answered, and mended where a narrow relation asks for other values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import SpecError
from blockforge.spec import Hole, Spec
from blockforge.spec.relations.repair import relations_of

Ask = Callable[[Hole], Any]
_ROUNDS = 4
"""Changed values may lead to other holes, whose values are then to be mended too."""


def compile_candidate(
    space: Spec,
    ask: Ask,
    fixed: Mapping[str, Any] | None = None,
    mended: Callable[[Mapping[str, Any]], Ask] | None = None,
) -> Architecture:
    """`compile_spec` of a space, whose narrow relations are solved: `heads * head_dim == dim` is kept by hardly any
    values drawn at random, and so determines some of them.

    Args:
        ask: proposes values for holes.
        fixed: answers that are not to be changed.
        mended: told of changed answers; gives what is asked then. Default: those answers, else `ask`.
    Raises: SpecError as `compile_spec`; also where no values are found that keep the relations.
    """
    for _ in range(_ROUNDS):
        answers: dict[str, Any] = {}
        try:
            return compile_spec(space, ask=_noting(ask, answers))
        except SpecError as e:
            if any(d.code != "require" for d in e.diagnostics):
                raise
            relations = relations_of(space)
            repaired = relations.mend(answers, fixed) if relations.narrow else None
            if repaired is None or repaired == answers:
                raise
            error = e
        ask = mended(repaired) if mended is not None else _preferring(repaired, ask)
    raise error


def _noting(ask: Ask, answers: dict[str, Any]) -> Ask:
    def asked(hole: Hole) -> Any:
        answers[hole.name] = ask(hole)
        return answers[hole.name]

    return asked


def _preferring(answers: Mapping[str, Any], ask: Ask) -> Ask:
    return lambda hole: answers[hole.name] if hole.name in answers else ask(hole)

"""Candidates to start from: specs that lie in a space, as the answers that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blockforge.errors import BlockforgeError, SearchError, did_you_mean
from blockforge.search.space.locate import locate
from blockforge.search.space.parameters import distribution_of, member, scalar_of
from blockforge.spec import Hole, Spec, SpecLike, holes, load


def check_starts(starts: Mapping[str, Mapping[str, Any]], known: Mapping[str, Hole]) -> None:
    """Raise SearchError for a value of a hole that there is none of, or that the hole has not."""
    for start, values in starts.items():
        for name, value in values.items():
            if name not in known:
                hint = did_you_mean(name, known, "holes")
                raise SearchError(f"the start '{start}' fills the hole '{name}', and there is none\n  hint: {hint}")
            try:
                member(distribution_of(known[name]), value, name)
            except ValueError as e:
                raise SearchError(f"the start '{start}' cannot be: {e}") from None


def find_starts(space: Spec, specs: Sequence[SpecLike]) -> dict[str, dict[str, Any]]:
    """What Optuna keeps for the holes of each spec, by its name.

    Raises: SearchError for a spec that is no point of the space.
    """
    own = holes(space)
    starts = {}
    for source in specs:
        spec = load(source)
        try:
            answers = locate(space, spec)
        except SearchError:
            raise
        except BlockforgeError as e:
            raise SearchError(f"'{spec.name}' cannot be a start: {e}") from None
        starts[spec.name] = {name: scalar_of(own[name], value) for name, value in answers.items()}
    return starts

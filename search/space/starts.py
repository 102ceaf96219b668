"""Candidates to start from: specs that lie in a space, as the answers that make them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blockforge.errors import BlockforgeError, SearchError
from blockforge.search.space.locate import locate
from blockforge.search.space.parameters import scalar_of
from blockforge.spec import Spec, SpecLike, holes, load


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

"""What the best candidates of a search changed alike outside of structure, put into the spec that it began with.

A search around a spec may find better networks for a dull reason: another stem, another kernel size or norm, which has
nothing to do with the structure that it is credited with. So the start is trained with these changes too. No
block is known here: a change is outside of structure by where its hole stands.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError, Path
from blockforge.search.space.fit import fitted_answers
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord, arch_attributes
from blockforge.spec import Hole, Spec, holes

_OUTSIDE = ("stem", "downsample", "skips", "defaults", "stage_norm")
"""Keys of a spec, some of them of a stage as well, that say nothing of what its layers are."""
_INSIDE = ("kernel_size", "norm", "act")
"""Parameters that do not make another block of one."""
_SHARE, _FEWEST = 3, 2
"""The best third is looked at, if it is so many."""


@dataclass(frozen=True)
class Shared:
    """A start with changes.

    Attributes:
        label: what tables call it.
        note: which changes these are.
        trial: what a trial of it would be.
    """

    label: str
    note: str
    trial: TrialRecord


def with_shared_changes(plan: Plan, start: TrialRecord, best_first: Sequence[TrialRecord]) -> Shared | None:
    """A start with the changes outside of structure that most of the best third share; None: there are none.

    Args:
        start: what the winner is compared with before all; the budget may have refused it.
        best_first: the search's candidates, ranked.
    """
    others = [r for r in best_first if r.start is None]
    best = others[: max(1, len(others) // _SHARE)]
    if len(best) < _FEWEST:
        return None
    changes = shared_changes(holes(plan.space), start.holes, [r.holes for r in best])
    made = _made(_Place(plan), json.dumps({**start.holes, **changes}, sort_keys=True)) if changes else None
    if made is None or made.arch.hash == start.hash:
        return None
    said = [f"{name}={value}" for name, value in changes.items() if name in made.answers]
    number = f"{len(said)} shared change{'s' if len(said) > 1 else ''}"
    note = f"The best third mostly have {', '.join(said)}: a lead over {start.start} alone may be due to that."
    recipe = {name: value for name, value in start.holes.items() if name in plan.recipe_holes}
    attrs = arch_attributes(made.arch, made.widths, recipe=start.recipe)
    trial = TrialRecord(-1, "scored", holes={**made.answers, **recipe}, **attrs)
    return Shared(f"start {start.start} with {number}", note, trial)


def shared_changes(
    known: Mapping[str, Hole], start: Mapping[str, Any], others: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What more than half of the others answer alike, and otherwise than the start, to its holes outside of structure.
    Holes that it does not have have the answer that is most frequent: such a change may open them."""
    changes = {}
    for name, hole in known.items():
        answers = Counter(other[name] for other in others if name in other)
        if not answers or not is_outside_structure(hole.path):
            continue
        value, times = answers.most_common(1)[0]
        if name not in start or (2 * times > len(others) and value != start[name]):
            changes[name] = value
    return changes


def is_outside_structure(path: Path) -> bool:
    """Whether what stands at a path of a spec is no depth, width or pattern, and no block of a layer."""
    if path[-1] == "dim":
        return False
    outside = path[0] in _OUTSIDE or (path[0] == "stages" and len(path) > 2 and path[2] in _OUTSIDE)
    return outside or path[-1] in _INSIDE


class _Place:
    """Where a network is made: equal for equal spaces and budgets, so that what was made once is known."""

    def __init__(self, plan: Plan) -> None:
        self.space: Spec = plan.space
        self.budget, self.fit = plan.budget, plan.fit
        self.key = json.dumps([plan.space.tree, plan.budget.as_dict(), plan.fit], sort_keys=True, default=str)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class _Made(NamedTuple):
    """A network, the answers that it was asked for, and the widths that fitting changed."""

    arch: Architecture
    answers: dict[str, Any]
    widths: dict[str, Any]


@functools.lru_cache(maxsize=16)
def _made(place: _Place, wanted: str) -> _Made | None:
    """The network of these answers, fitted as a search's candidates are; None: there is none."""
    given, asked = json.loads(wanted), {}

    def answer(hole: Hole) -> Any:
        asked[hole.name] = given.get(hole.name, hole.labels[0] if hole.labels else hole.low)
        return asked[hole.name]

    try:
        own = compile_spec(place.space, ask=answer)
        if place.fit is None:
            return _Made(own, asked, {})
        fitted, widths = fitted_answers(place.space, asked, place.budget, place.fit)
    except BlockforgeError:
        return None
    return _Made(fitted, asked, widths)

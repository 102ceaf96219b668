"""What the choice is compared with: other combinations of the same alternatives, for the same budget."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from blockforge.swapping.slots import Alternative, meet
from blockforge.swapping.solve import best
from blockforge.swapping.ties import NONE, Ties

Picked = list[int] | None
"""Numbers of alternatives; None: no such combination reaches the budget."""
_DRAWS = 32
_HALVINGS = 30
_TURNS = 6
_GOLDEN = 0.6180339887
"""Its multiples, taken modulo 1, spread evenly."""


def skip_alone(
    alternatives: Sequence[Alternative],
    scores: Sequence[float],
    least: Mapping[str, float],
    ties: Ties = NONE,
) -> Picked:
    """The best combination that leaves branches out and thins none. Arguments are those of `solve.best`."""
    own = [i for i, a in enumerate(alternatives) if a.is_skip]
    chosen = best([alternatives[i] for i in own], [scores[i] for i in own], least, ties.among(own)) if own else None
    return None if chosen is None else [own[i] for i in chosen]


def uniform(
    alternatives: Sequence[Alternative],
    whole: Mapping[str, int],
    least: Mapping[str, float],
    ties: Ties = NONE,
) -> Picked:
    """Every branch thinned by the same share, as near as its alternatives come. Where they differ in steps, the first
    ones take the next step until enough is saved. Where the thinnest of all do not do, branches go, spread evenly.

    Args:
        whole: multiply-adds of each slot, by its name.
    """
    slots = [members for members in _members(alternatives) if not alternatives[members[0]].slot.is_width]
    thinnest = _thinned_alike(alternatives, slots, whole, 1.0)
    if not _reaches(alternatives, thinnest.values(), least, ties):
        return _fewer(alternatives, slots, thinnest, least, ties)
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _reaches(alternatives, _thinned_alike(alternatives, slots, whole, middle).values(), least, ties)
        low, high = (low, middle) if enough else (middle, high)
    chosen, more = (_thinned_alike(alternatives, slots, whole, share) for share in (low, high))
    for slot, pick in more.items():
        if _reaches(alternatives, chosen.values(), least, ties):
            break
        chosen[slot] = pick
    return sorted(chosen.values())


def drawn(alternatives: Sequence[Alternative], least: Mapping[str, float], seed: int, ties: Ties = NONE) -> Picked:
    """A random combination: slots in a random order take an alternative at random, then one that saves more, until
    enough is saved. Of several such draws the one that saves least beyond that, so that it costs about the budget."""
    draw = random.Random(seed)
    slots = _members(alternatives)
    draws = (_draw(alternatives, slots, least, draw, ties) for _ in range(_DRAWS))
    able = [chosen for chosen in draws if chosen is not None]
    return min(able, key=lambda chosen: ties.saved(alternatives, chosen, "macs"), default=None)


def _members(alternatives: Sequence[Alternative]) -> list[list[int]]:
    """The numbers of each slot's alternatives."""
    return [list(members) for _, members in groupby(range(len(alternatives)), key=lambda i: alternatives[i].slot)]


def _fits(alternatives: Sequence[Alternative], chosen: Mapping[int, int], number: int, pick: int) -> bool:
    """Whether nothing stands in other slots that cannot stand beside it."""
    return not any(meet(alternatives[i], alternatives[pick]) for slot, i in chosen.items() if slot != number)


def _thinned_alike(
    alternatives: Sequence[Alternative], slots: Sequence[Sequence[int]], whole: Mapping[str, int], share: float
) -> dict[int, int]:
    """For each slot, by its number, what saves about this share of it; slots that stay as they are have none."""
    chosen = {}
    for number, members in enumerate(slots):
        wanted = share * whole[alternatives[members[0]].slot.name]
        thinner = [i for i in members if not alternatives[i].is_skip]
        near = min(thinner, key=lambda i: abs(alternatives[i].saved["macs"] - wanted), default=None)
        # if even the nearest saves twice what is wanted, that is nearer to the branch as it is
        if near is not None and alternatives[near].saved["macs"] < 2 * wanted:
            chosen[number] = near
    return chosen


def _fewer(
    alternatives: Sequence[Alternative],
    slots: Sequence[Sequence[int]],
    thinnest: Mapping[int, int],
    least: Mapping[str, float],
    ties: Ties,
) -> Picked:
    chosen = dict(thinnest)
    for number in sorted(range(len(slots)), key=lambda i: i * _GOLDEN % 1):
        skip = next((i for i in slots[number] if alternatives[i].is_skip), None)
        if skip is None or not ties.allow({*chosen.values(), skip}):
            continue
        chosen[number] = skip
        if _reaches(alternatives, chosen.values(), least, ties):
            return sorted(chosen.values())
    return None


def _draw(
    alternatives: Sequence[Alternative],
    slots: Sequence[Sequence[int]],
    least: Mapping[str, float],
    draw: random.Random,
    ties: Ties,
) -> Picked:
    chosen: dict[int, int] = {}
    for turn in range(_TURNS):
        for number in draw.sample(range(len(slots)), len(slots)):
            saves = alternatives[chosen[number]].saved["macs"] if number in chosen else -1
            more = [i for i in slots[number] if alternatives[i].saved["macs"] > saves]
            pick = draw.choice(more) if more and (turn or draw.random() < 1 - 1 / (len(more) + 1)) else None
            if pick is None or not _fits(alternatives, chosen, number, pick):
                continue
            if ties.allow({*chosen.values(), pick}):
                chosen[number] = pick
            if _reaches(alternatives, chosen.values(), least, ties):
                return sorted(chosen.values())
    return None


def _reaches(
    alternatives: Sequence[Alternative], chosen: Iterable[int], least: Mapping[str, float], ties: Ties
) -> bool:
    picked = {*chosen}
    return all(ties.saved(alternatives, picked, name) >= saved for name, saved in least.items())

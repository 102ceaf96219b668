"""Shorter ways that a program runs in than part by part, found of its steps: costs and code both go by them.

Slices that share a map are views of it where all that read them go element by element. A convolution whose result is
added to what it reads, and that nothing else reads, is one pass over the map with that sum. These slices and sums have
no module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from blockforge.blocks.part import Join, Part

if TYPE_CHECKING:
    from blockforge.blocks.compose.program import Program, Step


@dataclass(frozen=True)
class Shorter:
    """Steps by their numbers.

    Attributes:
        shares: those that give the channels of a map without a copy, in their order, for the first of them.
        views: each of these and its channels (from, to).
        added: sums that run as one with a convolution, and which.
    """

    shares: dict[int, tuple[int, ...]]
    views: dict[int, tuple[int, int]]
    added: dict[int, int]


def shorter(program: Program) -> Shorter:
    seen = {number: channels for number, channels in _slices(program) if _only_seen(program, number)}
    shares = dict(_shares(program, seen))
    return Shorter(shares, {n: seen[n] for numbers in shares.values() for n in numbers}, dict(_sums(program)))


def _slices(program: Program) -> Iterator[tuple[int, tuple[int, int]]]:
    for number, step in enumerate(program.steps, 1):
        if isinstance(step.op, Part) and (channels := step.op.as_view(*step.placed.told)) is not None:
            yield number, channels


def _shares(program: Program, seen: dict[int, tuple[int, int]]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Views of a map of which nothing else is read: one beside a copy would keep the map for longer than a copy. One
    call gives all of them, whose backward pass writes the map's gradient once."""
    for value, readers in enumerate(program.readers):
        numbers = tuple(n for n in readers if n in seen)
        edges = [0, *(seen[n][1] for n in numbers)]
        whole = numbers and numbers == readers and edges[-1] == program.shape_of(value).dim
        if whole and edges[:-1] == [seen[n][0] for n in numbers]:
            yield numbers[0], numbers


def _only_seen(program: Program, number: int) -> bool:
    """Whether whatever reads a step goes element by element, and gives new memory or is read so in its turn."""
    readers = program.readers[number]
    return bool(readers) and all(
        program.steps[r - 1].op.elementwise and (not program.steps[r - 1].op.overwrites or _of_many(program, r))
        for r in readers
    )


def _of_many(program: Program, number: int) -> bool:
    """Whether a step that may put its result into a view is a join, which never does, or is only seen itself."""
    return program.steps[number - 1].op.kind == "join" or _only_seen(program, number)


def _sums(program: Program) -> Iterator[tuple[int, int]]:
    for number, step in enumerate(program.steps, 1):
        if step.op.kind == "join" and len(step.inputs) == 2 and step.placed.told[0][0] == step.shape:
            op = cast(Join, step.op)
            if op.factors(step.placed.told[0]) != (1.0, 1.0):
                continue
            for added, around in (step.inputs, step.inputs[::-1]):
                if added and _adds(program, program.steps[added - 1], around) and program.readers[added] == (number,):
                    yield number, added
                    break


def _adds(program: Program, step: Step, around: int) -> bool:
    """Whether a step can add the value `around`, which it reads, to what it makes of that."""
    return (
        isinstance(step.op, Part)
        and step.inputs == (around,)
        and not step.is_shared
        and step.op.adds_input(*step.placed.told)
    )

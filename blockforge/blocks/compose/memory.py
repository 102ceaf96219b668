"""Which maps of a composite live at once, in inference.

A map lives from the step that makes it to the last step that reads it. A part that may overwrite takes the memory of
what it reads if nobody reads that later; one that takes no memory gives a view of what it reads, as slices do where
`shorter` says so. What the composite itself reads is the caller's, who counts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from blockforge.blocks.base import Scratch
from blockforge.blocks.facts import Facts, facts
from blockforge.kernels.costs import costed

if TYPE_CHECKING:
    from blockforge.blocks.compose.program import Program, Step


@dataclass(frozen=True)
class Inside:
    """What an operation holds beside the maps of the composite it is in, see `blocks.base.Scratch`.

    Attributes:
        scratch: its own.
        tiles: of an image that it runs on at once.
        alive: elements of the composite that are alive meanwhile.
    """

    scratch: Scratch
    tiles: int
    alive: int | None

    def held(self, images: int) -> int:
        return self.scratch.held(images * self.tiles)


def inside(program: Program, scratch: Scratch, beside: int, step: Step) -> Scratch:
    """A step's scratch as its composite's; `beside`: elements that live while the step runs and are not its own."""
    own = (
        scratch.alive * step.runs if scratch.alive is not None else _taken(program, step, facts(step.placed, costed()))
    )
    return Inside(scratch, step.runs, beside + own)


def sweep(program: Program) -> tuple[list[int], int]:
    """For each step the elements that live beside its own; and the most that live at once."""
    if (known := program.swept.get(costed())) is None:
        known = program.swept[costed()] = _swept(program)
    return known


def _swept(program: Program) -> tuple[list[int], int]:
    memory, said = _owners(program), program.facts(costed())
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps, 1):
        for value in (*step.inputs, number):
            last[memory[value]] = number
    last[memory[len(program.steps)]] = len(program.steps) + 1
    alive, most = 0, 0
    held: dict[int, int] = {}
    beside = []
    for number, step in enumerate(program.steps, 1):
        taken = 0 if memory[number] != number else _taken(program, step, said[number - 1])
        beside.append(alive)
        if memory[number] == number:
            held[number] = step.shape.elements * step.tiles
            most = max(most, alive + taken)
            alive += held[number]
        for owner in [o for o in held if last[o] == number]:
            alive -= held.pop(owner)
    return beside, most


def in_place(program: Program) -> frozenset[int]:
    """The steps that put their result where their input is, though they would make a map of their own elsewhere."""
    memory, said, short = _owners(program), program.facts(costed()), program.shorter
    without = {*short.views, *short.added.values()}
    return frozenset(n for n, own in enumerate(said, 1) if memory[n] != n and own.workspace and n not in without)


def _owners(program: Program) -> list[int]:
    """For each value the step whose memory it is in; 0: the caller's."""
    memory, short = [0], program.shorter
    of_owner: list[Channels] = [_ALL]  # of its owner's memory, for each value
    reads: dict[int, list[tuple[int, Channels]]] = {0: _reads(program, 0, _ALL)}
    added = frozenset(short.added.values())
    for number, (step, own) in enumerate(zip(program.steps, program.facts(costed()), strict=True), 1):
        giver = step.inputs[0]
        source, channels = memory[giver], of_owner[giver]
        shares = own.workspace == 0 or number in short.views or number in added
        if not shares and source and _may_overwrite(program, step):
            shares = not any(reader > number and _overlap(read, channels) for reader, read in reads[source])
        owner = source if shares else number
        memory.append(owner)
        of_owner.append(_part_of(channels, short.views.get(number)) if shares else _ALL)
        reads.setdefault(owner, []).extend(_reads(program, number, of_owner[number]))
    return memory


Channels = tuple[int, int]
_ALL: Channels = (0, 1 << 62)
"""From which channel to which; of a map that is nobody's view, all."""


def _reads(program: Program, value: int, channels: Channels) -> list[tuple[int, Channels]]:
    """The steps that read a value, and which channels of its memory: a view reads no more than it shows."""
    return [(r, _part_of(channels, program.shorter.views.get(r))) for r in program.readers[value]]


def _part_of(channels: Channels, view: Channels | None) -> Channels:
    return channels if view is None else (channels[0] + view[0], channels[0] + view[1])


def _overlap(a: Channels, b: Channels) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _taken(program: Program, step: Step, said: Facts) -> int:
    """Most elements that a step takes for an image. One that is told of rolled tiles makes a mask of them besides."""
    own = said.workspace
    if step.op.kind == "join" and step.sized_by is not None:
        cut = program.steps[step.sized_by - 1]
        op, cut_op = cast(Any, step.op), cast(Any, cut.op)
        own += op.mask_elements(*step.placed.told) if cut_op.rolls(*cut.placed.place) else 0
    return own * step.runs


def _may_overwrite(program: Program, step: Step) -> bool:
    """Whether a step's result may take the memory of what it reads."""
    return step.op.overwrites and step.shape == program.shape_of(step.inputs[0])

"""Which maps of a composite live at once, in inference.

A map lives from the step that makes it to the last step that reads it. A part that may overwrite takes the memory of
what it reads if nobody else holds that; one that takes no memory gives a view of what it reads. What the composite
itself reads is the caller's, who counts it.
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
    found = []
    for number, step in enumerate(program.steps, 1):
        taken = 0 if memory[number] != number else _taken(program, step, said[number - 1])
        found.append(alive)
        if memory[number] == number:
            held[number] = step.shape.elements * step.tiles
            most = max(most, alive + taken)
            alive += held[number]
        for owner in [o for o in held if last[o] == number]:
            alive -= held.pop(owner)
    return found, most


def in_place(program: Program) -> frozenset[int]:
    """The steps that put their result where their input is, though they would make a map of their own elsewhere."""
    memory, said = _owners(program), program.facts(costed())
    return frozenset(n for n, own in enumerate(said, 1) if memory[n] != n and own.workspace)


def _owners(program: Program) -> list[int]:
    """For each value the step whose memory it is in; 0: the caller's."""
    memory, last = [0], {0: 0}  # last: the step that reads the memory of each owner last
    for number, (step, own) in enumerate(zip(program.steps, program.facts(costed()), strict=True), 1):
        source = memory[step.inputs[0]]
        shares = own.workspace == 0 or (source != 0 and last[source] <= number and _may_overwrite(program, step))
        owner = source if shares else number
        memory.append(owner)
        last[owner] = max(last.get(owner, 0), *program.readers[number][-1:], 0)
    return memory


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

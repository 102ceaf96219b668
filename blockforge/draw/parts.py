"""What composed blocks are made of, as tables for people: a row a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.facts import facts
from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.draw.one_line import in_one_line
from blockforge.draw.opened_block import groups_of, pieces_of
from blockforge.units import format_count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from blockforge.compiler.architecture import Architecture
    from blockforge.compiler.graph.nodes import Node

_LINE = 300
"""Characters that a block may take in words."""


def part_tables(arch: Architecture) -> list[RenderableType]:
    """A line and a table for each composed block, of which those that are equal share one."""
    places: dict[tuple[str, Program], list[Node]] = {}
    for node in arch.nodes.values():
        program = node.program
        if program is not None and len(program.steps) > 1:
            places.setdefault((node.op, program), []).append(node)
    renderables: list[RenderableType] = []
    for (_, program), nodes in places.items():
        others = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        renderables.append(Prose(f"{nodes[0].name}{others}, on {program.shape}", "bold"))
        renderables.append(Prose(in_one_line(groups_of(pieces_of(nodes[0], arch.backend)), _LINE)))
        renderables.append(_table(program, arch.backend))
    return renderables


def _table(program: Program, backend: str) -> TextTable:
    table = TextTable(
        Label("part"), Words("op"), Words("reads"), Number("gives"), Number("params"), Number("MACs"),
    )  # fmt: skip
    before = 0
    for number, step in enumerate(program.steps, 1):
        cost = facts(step.placed, backend).cost
        reads = "" if step.inputs == (before,) else ", ".join(_name(program, i) for i in step.inputs)
        params = format_count(0 if step.is_shared else cost.params)
        table.add_row(step.path, step.op.op, reads, _gives(step), params, format_count(cost.macs * step.runs))
        before = number
    return table


def _gives(step: Step) -> str:
    return f"{step.tiles}x {step.shape}" if step.tiles > 1 else str(step.shape)


def _name(program: Program, value: int) -> str:
    return program.steps[value - 1].path if value else "input"

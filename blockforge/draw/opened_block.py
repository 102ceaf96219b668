"""What a block does, piece by piece: its norm, its parts, and the way around it; and the same in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Shape
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.compose.written import Seq
from blockforge.blocks.facts import facts, parameters
from blockforge.blocks.part import TrainingPart
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite
from blockforge.kernels.costs import DEFAULT
from blockforge.units import format_count

MAX_PIECES = 300
"""More than these are told, not drawn."""
INPUT = "input"
_FOLLOWS = ("norm", "act")
"""Kinds that are drawn in the box of what they follow."""
_LINE = 110


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that is done to a map.

    Attributes:
        name: its path in the block.
        says: its op and what is special about it, `conv 3x3 /2`.
        kind: mixer (it mixes positions), ffn (it does not), norm, act, join, or other: what costs nothing.
        inputs: the pieces it reads.
        gives: the map that it gives; of tiles: of each, and how many there are.
        about: lines of text with its figures.
    """

    name: str
    says: str
    kind: str
    inputs: tuple[str, ...]
    gives: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Pieces that are drawn as one, a line each: an op, and the norms and activations that follow it alone."""

    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return self.pieces[-1].name

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.pieces[0].inputs

    @property
    def kind(self) -> str:
        return self.pieces[0].kind

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(piece.says for piece in self.pieces)

    @property
    def gives(self) -> str:
        return self.pieces[-1].gives


def is_list(node: Node) -> bool:
    """Whether a node runs a list of ops, which has no name."""
    written = getattr(node.block, "of", None)
    return isinstance(getattr(written, "value", None), Seq)


def opens(node: Node) -> bool:
    """Whether a node's block is made of parts that can be shown."""
    program = node.program
    return program is not None and 1 < len(program.steps) <= MAX_PIECES


def pieces_of(node: Node, backend: str = DEFAULT) -> list[Piece]:
    """All that a node does, in the order it is done. The first piece is the map that it reads."""
    pieces = [Piece(INPUT, INPUT, "input", (), _map(node.shapes.in_shape, node.shapes.windows))]
    residual = node.site.residual if isinstance(node.site, BranchSite) else None
    if node.norm is not None:
        parts = node.norm_parts
        alone = [Piece("norm", node.norm.op, "norm", (INPUT,), pieces[0].gives)]
        pieces += alone if parts is None else parts_of(parts, INPUT, backend, "norm.")
    program = node.program
    pieces += parts_of(program, pieces[-1].name, backend) if program is not None else [_whole(node, pieces)]
    if residual is None:
        return pieces
    gives = pieces[-1].gives
    if residual.keys.scale is not None and residual.keys.scale.branch is not None:
        pieces.append(Piece("scale", "scale", "other", (pieces[-1].name,), gives))
    if residual.keys.skip:
        around, scale = INPUT, residual.keys.scale
        if scale is not None and scale.skip is not None:
            pieces.append(Piece("skip", "scale", "other", (INPUT,), gives))
            around, before = "skip", pieces[-2].name
        else:
            before = pieces[-1].name
        pieces.append(Piece("add", "add", "join", (around, before), gives))
    if residual.post_act is not None:
        pieces.append(Piece("post_act", residual.post_act.op, "act", (pieces[-1].name,), gives))
    return pieces


def parts_alone(node: Node, backend: str = DEFAULT) -> list[Piece]:
    """The parts of a node's block, behind the map that they read."""
    program = node.program
    assert program is not None
    return [Piece(INPUT, INPUT, "input", (), str(program.shape)), *parts_of(program, INPUT, backend)]


def parts_of(program: Program, source: str = INPUT, backend: str = DEFAULT, prefix: str = "") -> list[Piece]:
    """The parts of a composed block that act in inference; `source`: the piece that it reads, `prefix`: of the pieces'
    names."""
    names = [source]
    pieces: dict[str, Piece] = {}
    for i, step in enumerate(program.steps):
        if isinstance(step.op, TrainingPart):
            names.append(names[step.inputs[0]])
            continue
        says = _says(step.op, [program.shape_of(v) for v in step.inputs], step.shape)
        inputs = [names[v] for v in step.inputs]
        first = pieces.get(inputs[0])
        if len(inputs) > 1 and first is not None and _goes_on(program, step, first):
            inputs[:1] = pieces.pop(inputs[0]).inputs
        names.append(name := f"{prefix}{step.path}#{i}")
        pieces[name] = Piece(
            name, says, _kind(step, backend), tuple(inputs), _map(step.shape, step.tiles), _about(step, backend)
        )
    return list(pieces.values())


def _goes_on(program: Program, step: Step, first: Piece) -> bool:
    """Whether a join of two maps adds a further one to what the same join gave; they are shown as one."""
    before = program.steps[step.inputs[0] - 1]
    alone = len(program.readers[step.inputs[0]]) == 1
    return first.kind == "join" and alone and before.op == step.op and getattr(step.op, "pairwise", False)


def groups_of(pieces: Sequence[Piece]) -> list[Group]:
    """The pieces, with norms and activations in the box of what they follow, if nobody else reads it."""
    readers: dict[str, int] = {}
    for piece in pieces:
        for name in dict.fromkeys(piece.inputs):
            readers[name] = readers.get(name, 0) + 1
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        before = piece.inputs[0] if len(piece.inputs) == 1 else ""
        joins = piece.kind in _FOLLOWS and before in groups and readers[before] == 1
        joins = joins and groups[before][0].kind not in (INPUT, "norm")
        groups[piece.name] = [*(groups.pop(before) if joins else ()), piece]
    return [Group(tuple(group)) for group in groups.values()]


def _whole(node: Node, before: Sequence[Piece]) -> Piece:
    """A block that is not made of parts."""
    shapes = node.shapes
    said = _says(node.block, [shapes.in_shape], shapes.out_shape) if node.block is not None else node.op
    return Piece("op", said, node.kind, (before[-1].name,), _map(shapes.out_shape, shapes.windows))


def _kind(step: Step, backend: str) -> str:
    op = step.op
    if op.kind in ("norm", "act", "join"):
        return op.kind
    if getattr(op, "mixes", op.kind == "mixer"):
        return "mixer"
    cost = facts(step.placed, backend).cost
    return "ffn" if cost.params or cost.macs else "other"


def _says(op: AnyOp, reads: Sequence[Shape], gives: Shape) -> str:
    """An op and what is special about it; its width where that is not what it reads."""
    known = parameters(op) if op.op in registry.BLOCKS else {}  # others are no part of the language
    changes = len(reads) == 1 and reads[0].dim != gives.dim
    special = {k: v for k, v in known.items() if _is_special(op, k, v) and not (changes and v == gives.dim)}
    widths = [str(gives.dim)] if changes else []
    return " ".join([op.op, *widths, *(_word(key, value) for key, value in special.items())])


def _is_special(op: AnyOp, key: str, value: Any) -> bool:
    """Whether a parameter is worth a word: sides, and what is not at its default; not small numbers, not none."""
    if key == "kernel_size":
        return True
    field = type(op).model_fields.get(key)
    if field is None or key == "init" or (field.is_required() and field.annotation is not int):
        return False
    is_set = getattr(op, key) != field.get_default(call_default_factory=True)
    return is_set and value not in (1, False, None, "none") and not isinstance(value, float) and len(str(value)) <= 12


def _word(key: str, value: Any) -> str:
    """A parameter, short: sides as `3x3`, a stride as `/2`."""
    sides = "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if key == "kernel_size":
        return sides if "x" in sides else f"{sides}x{sides}"
    return f"/{sides}" if key == "stride" else key if value is True else f"{key} {value}"


def _about(step: Step, backend: str) -> str:
    cost = facts(step.placed, backend).cost
    values = ", ".join(f"{k}={v}" for k, v in parameters(step.op).items())
    params, macs = 0 if step.is_shared else cost.params, cost.macs * step.runs
    shared = "; a module that an earlier part has" if step.is_shared else ""
    return f"{step.path}\n{step.op.op}({values})\n{format_count(params)} params, {format_count(macs)} MACs{shared}"


def _map(shape: Shape, tiles: int) -> str:
    return f"{tiles}x {shape}" if tiles > 1 else str(shape)

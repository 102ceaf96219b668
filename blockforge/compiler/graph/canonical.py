"""Canonical form: equal architectures written differently give equal text, and so an equal hash.

Only what the network computes counts: blocks with all their parameters, shapes as they lie in memory, edges and drop
path rates, in execution order. Names, notes, `let`, patterns and the order of keys do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.facts import parameters, resolved
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BranchSite, EdgeSite, NormSite, ReducingSite

VERSION = 1


def canonical(nodes: Sequence[Node]) -> str:
    """The canonical form as JSON text; `nodes` in execution order."""
    index: dict[str, int] = {}
    rows: list[list[Any]] = []
    for node in nodes:
        if _is_nothing(node):
            index[node.name] = index[node.inputs[0]]
            continue
        index[node.name] = len(rows)
        rows.append(_row(node, index))
    return json.dumps([VERSION, rows], sort_keys=True, separators=(",", ":"))


def _is_nothing(node: Node) -> bool:
    """Whether a step between stages, or on an edge, gives what it reads: `downsample: identity`, for an empty stage."""
    return (
        isinstance(node.site, ReducingSite | EdgeSite | NormSite)
        and len(node.inputs) == 1
        and node.written_out is not None
        and not node.written_out.steps
    )


def _row(node: Node, index: dict[str, int]) -> list[Any]:
    site, shapes = node.site, node.shapes
    kind, op, own = _block(node)
    return [
        kind,
        op,
        _said(own),
        [index[i] for i in node.inputs],
        shapes.out_shape.row,
        shapes.windows,
        _norm(node),
        *(site.residual.canonical() if isinstance(site, BranchSite) else _NO_RESIDUAL),
    ]


def _block(node: Node) -> tuple[str, str, Any]:
    """What a node runs: kind, name, parameters. Of a composite only the program counts, and one part alone is it."""
    placed, program = node.shapes.placed, node.written_out
    if placed is None:
        return node.kind, node.op, node.parameters
    if program is None:
        return node.kind, node.op, parameters(resolved(placed))
    return _of_parts(program)


def _of_parts(program: Program) -> tuple[str, str, Any]:
    if len(program.steps) == 1:
        step = program.steps[0]
        return step.op.kind, step.op.op, parameters(resolved(step.placed))
    return "composed", "", {"steps": [_step(step) for step in program.steps]}


def _step(step: Step) -> list[Any]:
    op = resolved(step.placed)
    return [op.op, _said(parameters(op)), step.inputs, step.shape.row, step.tiles, step.runs, step.is_shared]


_NO_RESIDUAL = (None, 0.0)


def _norm(node: Node) -> list[Any] | None:
    norm, program = node.norm, node.norm_parts
    if norm is None:
        return None
    if program is None:
        return [norm.op, _said(parameters(norm))]
    kind, op, own = _of_parts(program)
    return [op or kind, _said(own)]


def _said(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without what is left out, so that a block may get a new optional parameter and keep its old hashes."""
    return {name: value for name, value in parameters.items() if value is not None}


def digest(nodes: Sequence[Node]) -> str:
    """A hash of the canonical form: 16 hexadecimal digits."""
    return hashlib.sha256(canonical(nodes).encode()).hexdigest()[:16]

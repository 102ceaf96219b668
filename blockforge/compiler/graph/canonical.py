"""Canonical form: equal architectures written differently give equal text, and so an equal hash.

Only what the network computes counts: blocks with all their parameters, shapes, edges and drop path rates,
in execution order. Names, notes, `let`, patterns and the order of keys do not.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import networkx as nx

from blockforge.blocks.base import Op
from blockforge.compiler.finish import parameters

VERSION = 1


def canonical(graph: nx.DiGraph) -> str:
    """The canonical form as JSON text."""
    index = {name: i for i, name in enumerate(graph.nodes)}
    rows = []
    for node in graph.nodes.values():
        scale, norm = node["scale"], node["norm"]
        row = [
            node["kind"],
            node["op"],
            _said(_parameters(node)),
            [index[i] for i in node["inputs"]],
            list(node["out_shape"]),
            node["windows"],
            [norm.op, _said(norm.parameters_dict())] if norm is not None else None,
            [scale.branch, scale.skip] if scale is not None else None,
            round(node["drop_path"], 12),
        ]
        if node["post_act"] is not None:
            row.append(node["post_act"])
        rows.append(row)
    return json.dumps([VERSION, rows], sort_keys=True, separators=(",", ":"))


def _parameters(node: dict[str, Any]) -> dict[str, Any]:
    """Those of the block as it stands at its place."""
    impl = node["impl"]
    return parameters(resolved(impl, node["place"])) if impl is not None else node["parameters"]


@functools.lru_cache(4096)
def resolved(op: Op, place: tuple[Any, ...]) -> Op:
    """See `Op.resolved`."""
    return op.resolved(*place)


def _said(parameters: dict[str, Any]) -> dict[str, Any]:
    """Without what is left out, so that a block may get a new optional parameter and keep its old hashes."""
    return {name: value for name, value in parameters.items() if value is not None}


def digest(graph: nx.DiGraph) -> str:
    """A hash of the canonical form: 16 hexadecimal digits."""
    return hashlib.sha256(canonical(graph).encode()).hexdigest()[:16]

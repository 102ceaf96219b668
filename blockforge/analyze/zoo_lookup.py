"""Which specs of the zoo have modules of a kind: for errors that say where to look instead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from blockforge.blocks.base import AnyPlaced
from blockforge.compiler.zoo import compile_zoo

Test = Callable[[nn.Module], bool]


def nowhere(name: str, what: str, test: Test) -> str:
    """The error of a network in which no module passes a test: which specs of the zoo have one that does."""
    known: dict[type, bool] = {}
    having = []
    for spec, arch in compile_zoo()[0].items():
        nodes = arch.nodes.values()
        blocks = {type(n.shapes.placed.op): n.shapes.placed for n in nodes if n.shapes.placed is not None}
        for kind, placed in blocks.items():
            if kind not in known:
                known[kind] = _passes(placed, test)
        if any(known[kind] for kind in blocks):
            having.append(spec)
    return f"{name} has no layers with {what}\n  hint: these have: {', '.join(having)}"


def _passes(placed: AnyPlaced, test: Test) -> bool:
    with torch.device("meta"):  # modules without memory
        return any(test(part) for part in placed.build().modules())

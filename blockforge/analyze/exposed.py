"""Which specs of the zoo have modules of a kind: for errors that say where to look instead."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from blockforge.compiler import compile_spec
from blockforge.spec import list_specs

Test = Callable[[nn.Module], bool]


def nowhere(name: str, what: str, test: Test) -> str:
    """The error of a network in which no module passes a test: which specs of the zoo have one that does."""
    known: dict[type, bool] = {}
    having = []
    for spec in list_specs():
        nodes = compile_spec(spec).graph.nodes.values()
        blocks = {type(node["impl"]): node for node in nodes if node["impl"] is not None}
        for kind, node in blocks.items():
            if kind not in known:
                known[kind] = _passes(node["impl"].build, node["place"], test)
        if any(known[kind] for kind in blocks):
            having.append(spec)
    return f"{name} has no layers with {what}\n  hint: these have: {', '.join(having)}"


def _passes(build: Callable[..., nn.Module], place: tuple[object, ...], test: Test) -> bool:
    with torch.device("meta"):  # modules without memory
        return any(test(part) for part in build(*place).modules())

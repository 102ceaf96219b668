"""What a predictor sees of a network: figures of its compiled graph, by name. No block is known here.

Widths and sizes are logarithms, costs shares of the whole. What a network does not have, it has no figure of: 0.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from blockforge.compiler import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.search.objectives.scores.capacity import Capacity


def features(arch: Architecture) -> dict[str, float]:
    """Figures of a network: its sizes; of each stage depth, width and shares of the costs; of each block how often it
    stands there, in all and in each stage, its shares of the costs and the means of its parameters; how often
    each norm and each role of an edge."""
    figures: defaultdict[str, float] = defaultdict(float)
    figures |= {
        "log macs": math.log1p(arch.macs), "log params": math.log1p(arch.params), "depth": float(arch.depth),
        "log activations": math.log1p(arch.activation_bytes), "sum log dim": Capacity()(arch),
        "scans": arch.scan_macs / max(1, arch.macs),
    }  # fmt: skip
    nodes = list(arch.computed.values())
    for index, stage in enumerate(arch.stages):
        of_stage = [node for node in nodes if node.stage == index]
        figures[f"depth of stage {index}"] = len(stage.layers)
        figures[f"log dim of stage {index}"] = math.log(stage.end.last.out_shape.dim)
        _add_shares(figures, f"stage {index}", of_stage, arch)
    by_op: defaultdict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        by_op[node.op].append(node)
        figures[f"number of {node.kind}s"] += 1
        if node.stage is not None:
            figures[f"number of {node.op} in stage {node.stage}"] += 1
        if node.norm is not None:
            figures[f"number of {node.norm.title}"] += 1
    for op, own in by_op.items():
        figures[f"number of {op}"] = len(own)
        _add_shares(figures, op, own, arch)
        for name, values in _numbers(own).items():
            figures[name] = math.fsum(values) / len(values)
    for edge in arch.edges:
        figures[f"{edge.role} edges"] += 1
    return dict(figures)


def _add_shares(figures: defaultdict[str, float], of: str, nodes: Sequence[Node], arch: Architecture) -> None:
    figures[f"macs of {of}"] = sum(node.macs for node in nodes) / max(1, arch.macs)
    figures[f"params of {of}"] = sum(node.params for node in nodes) / max(1, arch.params)


def _numbers(nodes: Sequence[Node]) -> dict[str, list[float]]:
    """The parameters of one block at its places, by name: numbers as they are, of texts how often each is said."""
    numbers: defaultdict[str, list[float]] = defaultdict(list)
    for node in nodes:
        for name, value in node.parameters.items():
            if isinstance(value, int | float) and math.isfinite(value):
                numbers[f"{name} of {node.op}"].append(float(value))
            elif isinstance(value, str):
                numbers[f"{name}={value} of {node.op}"].append(1.0)
    return numbers

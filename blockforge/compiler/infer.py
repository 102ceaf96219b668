"""Shapes: every node learns what it reads and gives, and every block is asked whether it can stand there.

Adds to each node: `in_shape`, `out_shape`, `windows` (how many tiles an image is cut into at this node, 1
outside windows) and `place` (the arguments that the block's methods take, see `blocks.base`).
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import networkx as nx

from blockforge.blocks.base import Cost, Op, Shape
from blockforge.errors import OpError, Path, Report
from blockforge.spec.plan import Plan, PlannedOp

MAX_ELEMENTS = 2**40


class Facts(NamedTuple):
    """What a block says of itself at one place."""

    out_shape: Shape
    cost: Cost
    workspace: int


@functools.lru_cache(65_536)
def facts(op: Op, place: tuple[Any, ...]) -> Facts:
    """Shape, cost and workspace of a block at a place; equal blocks at equal places are asked once."""
    op.check(*place)
    out = op.out_shape(*place)
    if min(out) < 1:
        raise OpError(f"'{op.op}' leaves nothing of a map of {place[0]}", hint="use larger images or fewer stages")
    return Facts(out, op.cost(*place), op.workspace(*place))


def infer(graph: nx.DiGraph, plan: Plan, report: Report) -> None:
    """Fill in the shapes. Raises: SpecError with every block that cannot stand where it is."""
    _Infer(graph, plan, report).run()
    report.close()


class _Infer:
    def __init__(self, graph: nx.DiGraph, plan: Plan, report: Report) -> None:
        self.nodes = graph.nodes
        self.plan, self.report = plan, report
        self.said: set[tuple[Path, str]] = set()

    def run(self) -> None:
        for name, node in self.nodes(data=True):
            kind = node["kind"]
            step = getattr(self, f"_{kind}", self._block)
            if not step(name, node):
                return  # what follows would only repeat the mistake

    def _input(self, name: str, node: dict[str, Any]) -> bool:
        height, width = self.plan.input.size
        shape = Shape(height, width, self.plan.input.channels)
        node.update(in_shape=shape, out_shape=shape, windows=1, place=())
        return True

    def _block(self, name: str, node: dict[str, Any]) -> bool:
        """Any node that runs a block."""
        main = self.nodes[node["inputs"][-1 if node["kind"] in ("mixer", "ffn") else 0]]
        shape = main["out_shape"]
        if node["kind"] == "aggregator":
            sources = tuple(self.nodes[s]["out_shape"].dim for s in node["inputs"][1:])
            place: tuple[Any, ...] = (shape, sources, node["dim"])
        else:
            place = (shape,) if node["dim"] is None else (shape, node["dim"])
        node.update(in_shape=shape, windows=main["windows"], place=place)
        try:
            out = facts(node["impl"], place).out_shape
            if node["norm"] is not None:
                facts(node["norm"], (shape,))
        except OpError as e:
            planned: PlannedOp = node["planned"]
            self._complain(name, node, planned, e)
            return False
        if out.elements * node["windows"] > MAX_ELEMENTS:
            self._complain(name, node, node["planned"], OpError(f"a map of {out} is too large", code="size"))
            return False
        node["out_shape"] = out
        return True

    def _add(self, name: str, node: dict[str, Any]) -> bool:
        """A long skip that arrives: both maps must be of one shape."""
        main, skip = (self.nodes[n] for n in node["inputs"])
        shape, other = main["out_shape"], skip["out_shape"]
        node.update(in_shape=shape, out_shape=shape, windows=1, place=())
        if shape == other:
            return True
        stage_path: Path = ("stages", node["stage"])
        stage_loc = self.plan.locs.value(stage_path)
        text = f"stage {node['stage']} gives {shape}"
        self.report.error(
            "skip-shape",
            f"{text}{f' (line {stage_loc.line})' if stage_loc else ''}, the skip adds {other}",
            node["path"],
            hint="choose the skip's op so that it gives what the stage's downsample gives",
            related=[(text, stage_loc)] if stage_loc else [],
        )
        return False

    def _window_in(self, name: str, node: dict[str, Any]) -> bool:
        shape, window = self.nodes[node["inputs"][0]]["out_shape"], node["window"]
        if window > max(shape.height, shape.width):
            text = f"window {window} is larger than the map, {shape.height}x{shape.width}"
            self.report.warn("window", text, node["path"], hint="zeros fill the rest; a smaller window does less work")
        windows = -(-shape.height // window) * -(-shape.width // window)
        out = Shape(window, window, shape.dim)
        node.update(in_shape=shape, out_shape=out, windows=windows, place=())
        return True

    def _window_out(self, name: str, node: dict[str, Any]) -> bool:
        shape = self.nodes[node["inputs"][0]]["out_shape"]
        node.update(in_shape=shape, out_shape=self.nodes[node["like"]]["out_shape"], windows=1, place=())
        return True

    def _complain(self, name: str, node: dict[str, Any], planned: PlannedOp, e: OpError) -> None:
        path = (*planned.path, e.param) if e.param else planned.path
        where = f" (in {name}, on a map of {node['in_shape']})"
        related = planned.related(path, self.plan.locs)
        self.report.error(e.code, f"{e}{where}", path, hint=e.hint, related=related)

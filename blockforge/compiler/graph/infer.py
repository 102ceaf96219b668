"""Shapes: every node learns what it reads and gives, and every block is asked whether it can stand there.

Adds to each node: `in_shape`, `out_shape`, `windows` (how many tiles an image is cut into at this node, 1
outside windows), `place` (the arguments that the block's methods take, see `blocks.base`), `reduction` (pixels of
the image along a side for one position) and `tokens` (where patches lie in a row of them; None for a map). A long
skip whose block may round otherwise than the main path has a `rounding`: see `compiler.maps`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import networkx as nx

from blockforge.blocks.base import Cost, Op, Reducing, Shape
from blockforge.compiler.maps import fitted, rounding
from blockforge.errors import Loc, OpError, Path, Report
from blockforge.kernels.costs import DEFAULT, costs_of
from blockforge.spec.plan import Plan, PlannedOp
from blockforge.spec.reporting import NOWHERE, report_at

MAX_ELEMENTS = 2**40


class Facts(NamedTuple):
    """What a block says of itself at one place."""

    out_shape: Shape
    cost: Cost
    workspace: int


@functools.lru_cache(65_536)
def facts(op: Op, place: tuple[Any, ...], backend: str = DEFAULT) -> Facts:
    """Shape, cost and workspace of a block at a place, on a backend; equal blocks at equal places are asked once."""
    op.check(*place)
    out = op.out_shape(*place)
    if min(out) < 1:
        hint = "a larger input.size, or fewer stages and downsamples"
        raise OpError(f"'{op.op}' leaves nothing of the map", hint=hint, code="map-too-small")
    with costs_of(backend):
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
        steps = {
            "input": self._input,
            "add": self._add,
            "window_in": self._window_in,
            "window_out": self._window_out,
        }
        for name, node in self.nodes(data=True):
            if not steps.get(node["kind"], self._block)(name, node):
                return  # nobody knows the shapes behind this node

    # --- one step for each kind of node: fills in its shapes; False where it gives none

    def _input(self, name: str, node: dict[str, Any]) -> bool:
        height, width = self.plan.input.size
        shape = Shape(height, width, self.plan.input.channels)
        node.update(in_shape=shape, out_shape=shape, windows=1, place=(), reduction=1, tokens=None)
        return True

    def _block(self, name: str, node: dict[str, Any]) -> bool:
        """Any node that runs a block."""
        main = self.nodes[node["inputs"][-1 if node["kind"] in ("mixer", "ffn") else 0]]
        shape = main["out_shape"]
        if node["kind"] == "skip":
            shape = self._fitted(node, shape)
        if node["kind"] == "aggregator":
            sources = tuple(self.nodes[s]["out_shape"].dim for s in node["inputs"][1:])
            place: tuple[Any, ...] = (shape, sources, node["dim"])
        else:
            place = (shape,) if node["dim"] is None else (shape, node["dim"])
        inherited = {k: main[k] for k in ("windows", "reduction", "tokens")}
        node.update(in_shape=shape, place=place, **inherited)
        out = self._ask(name, node, node["impl"], node["planned"], place)
        if node["norm"] is not None:
            self._ask(name, node, node["norm"], node["norm_planned"], (shape,))
        if out is None and node["kind"] in ("mixer", "ffn", "norm"):
            out = shape  # what such a block would give is known: go on to find the other mistakes
        if out is None:
            return False
        if out.elements * node["windows"] > MAX_ELEMENTS:
            self._complain(name, node, node["planned"], OpError(f"a map of {out} is too large", code="size"))
            return False
        node["out_shape"] = out
        if isinstance(node["impl"], Reducing):
            node["reduction"] *= node["impl"].total_stride(*place)
            node["tokens"] = node["impl"].tokens(*place)
        return True

    def _fitted(self, node: dict[str, Any], shape: Shape) -> Shape:
        """What the block of a long skip reads: a map of which it makes one as large as the main path's, if rounding
        is all that keeps it from that."""
        op, main, dim = node["impl"], self.nodes[node["like"]], node["dim"]
        up = rounding(op, shape, dim)
        stage = self.nodes.get(f"stages.{node['stage']}.downsample")
        if stage is not None and rounding(stage["impl"], stage["in_shape"], dim) == up:
            return shape
        height, width = (fitted(side, to, up) for side, to in zip(shape[:2], main["out_shape"][:2], strict=True))
        if max(abs(height - shape.height), abs(width - shape.width)) >= len(up):
            return shape  # another stride: where the skip arrives, both shapes are told
        node["rounding"] = up
        return Shape(height, width, shape.dim)

    def _ask(self, name: str, node: dict[str, Any], op: Op, planned: PlannedOp, place: Any) -> Shape | None:
        try:
            return facts(op, place).out_shape
        except OpError as e:
            self._complain(name, node, planned, e)
        return None

    def _add(self, name: str, node: dict[str, Any]) -> bool:
        """A long skip that arrives: both maps must be of one shape."""
        main, skip = (self.nodes[n] for n in node["inputs"])
        shape, other = main["out_shape"], skip["out_shape"]
        way = {k: main[k] for k in ("reduction", "tokens")}
        node.update(in_shape=shape, out_shape=shape, windows=1, place=(), **way)
        if shape != other or main["reduction"] != skip["reduction"]:
            there, here = self.plan.locs.value(("stages", node["stage"])), self.plan.locs.value(node["path"])
            gives, adds = f"stage {node['stage']} takes {shape}", f"the skip adds {other}"
            if shape == other:  # at this size of the image, and at no other
                gives, adds = f"{gives} of stride {main['reduction']}", f"{adds} of stride {skip['reduction']}"
            text = f"{gives}{_line(there)}, {adds}{_line(here)}"
            op = self.nodes[node["inputs"][1]]["planned"].spec.op
            hint = f"'{op}' and the stage's downsample must give maps of one size; choose another op here"
            related = [(gives, there)] if there else []
            report_at(self.report, NOWHERE, "skip-shape", text, node["path"], hint=hint, related=related)
        return True

    def _window_in(self, name: str, node: dict[str, Any]) -> bool:
        shape, window = self.nodes[node["inputs"][0]]["out_shape"], node["window"]
        if window > max(shape.height, shape.width):
            size = f"{shape.height}x{shape.width}"
            text = f"window {window} is larger than the map of stage {node['stage']}, {size}"
            hint = f"zeros fill the rest; a window of {max(shape.height, shape.width)} covers the whole map"
            self.report.warn("window", text, node["path"], hint=hint)
        windows = -(-shape.height // window) * -(-shape.width // window)
        out = Shape(window, window, shape.dim)
        reduction = self.nodes[node["inputs"][0]]["reduction"]
        node.update(in_shape=shape, out_shape=out, windows=windows, place=(), reduction=reduction, tokens=None)
        return True

    def _window_out(self, name: str, node: dict[str, Any]) -> bool:
        like = {k: self.nodes[node["like"]][k] for k in ("out_shape", "reduction", "tokens")}
        node.update(in_shape=self.nodes[node["inputs"][0]]["out_shape"], windows=1, place=(), **like)
        return True

    def _complain(self, name: str, node: dict[str, Any], planned: PlannedOp, e: OpError) -> None:
        """Report a block that cannot stand at a node; once, however many layers it is in."""
        path = (*planned.path, e.param) if e.param else planned.path
        if (path, str(e)) in self.said:
            return
        self.said.add((path, str(e)))
        related: list[tuple[str, Loc]] = []
        stage = node["stage"]
        if stage is not None and (loc := self.plan.locs.value(("stages", stage, "dim"))) is not None:
            related = [(f"stage {stage} has dim {self.plan.stages[stage].dim}", loc)]
        text = f"{e} (in {name}, on a map of {node['in_shape']})"
        report_at(self.report, planned.origins, e.code, text, path, hint=e.hint, related=related)


def _line(loc: Loc | None) -> str:
    return f" (line {loc.line})" if loc else ""

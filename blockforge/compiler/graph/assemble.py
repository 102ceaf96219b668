"""Plan -> graph: every block made, every node and edge in execution order. Shapes and costs come later.

A node is a mapping in the networkx graph; its name is the path of its module in the built model. `inputs`
lists the nodes it reads, in order. What the passes behind this one add is listed in `architecture`.
"""

from __future__ import annotations

from typing import Any

import networkx as nx

from blockforge.blocks.base import Mixer
from blockforge.compiler.graph.connect import STAGE_INPUT, Feeds
from blockforge.compiler.graph.instantiate import Maker
from blockforge.errors import Report
from blockforge.spec.plan import Branch, Plan, PlannedOp, Skip, Stage
from blockforge.spec.reporting import NOWHERE, report_at

INPUT = "input"
MAX_NODES = 20_000
MAX_EDGES = 50_000

_NODE: dict[str, Any] = {
    "impl": None, "planned": None, "stage": None, "layer": None, "dim": None, "norm": None,
    "norm_planned": None, "scale": None, "drop_path": 0.0, "post_act": None, "rounding": None,
}  # fmt: skip


def assemble(plan: Plan, report: Report) -> nx.DiGraph:
    """The graph of `plan`, without shapes. Raises: SpecError with every block that could not be made."""
    maker = Maker(report)
    maker.check_all(plan)
    feeds = {s.index: maker.feeds(s) for s in plan.stages}
    report.close()
    _check_size(plan, feeds, report)
    return _Assembler(plan, maker, feeds).run()


class _Assembler:
    def __init__(self, plan: Plan, maker: Maker, feeds: dict[int, Feeds]) -> None:
        self.plan, self.make, self.feeds = plan, maker.make, feeds
        self.graph: nx.DiGraph = nx.DiGraph()

    def run(self) -> nx.DiGraph:
        plan = self.plan
        self.add(INPUT, "input", (), path=("input",))
        last = self.add_op("stem", "stem", (INPUT,), plan.stem, dim=plan.stem_dim)
        ways: dict[int, str] = {}
        rates = iter(plan.drop_path)
        for stage in plan.stages:
            last = self.stage_input(stage, last, ways)
            last = self.layers(stage, last, [next(rates) for _ in stage.layers])
            if plan.stage_norm is not None:
                name = f"stages.{stage.index}.norm"
                last = self.add_op(name, "norm", (last,), plan.stage_norm, stage=stage.index)
        self.add_op("head", "head", (last,), plan.head, dim=plan.num_classes)
        return self.graph

    # --- nodes

    def add(self, name: str, kind: str, inputs: tuple[str, ...], *, roles: tuple[str, ...] = (), **more: Any) -> str:
        """A node and its edges. The first input is the main one; `roles` names the others'."""
        self.graph.add_node(name, kind=kind, inputs=inputs, **{**_NODE, **more})
        for i, source in enumerate(inputs):
            if not self.graph.has_edge(source, name):  # a layer's input may also be one of its sources
                self.graph.add_edge(source, name, role=roles[i - 1] if 0 < i <= len(roles) else "main")
        return name

    def add_op(self, name: str, kind: str, inputs: tuple[str, ...], op: PlannedOp, **more: Any) -> str:
        """A node that runs one block."""
        return self.add(name, kind, inputs, impl=self.make(op), planned=op, path=op.path, **more)

    # --- stages

    def stage_input(self, stage: Stage, last: str, ways: dict[int, str]) -> str:
        """Downsampling, and the long skips that arrive at or pass through this stage's input.

        `ways`: how far each skip has come, by its number.
        """
        name, i = f"stages.{stage.index}", stage.index
        if stage.downsample is not None:
            last = self.add_op(f"{name}.downsample", "downsample", (last,), stage.downsample, dim=stage.dim, stage=i)
        entry = last
        for number, skip in _in_order(self.plan.skips):
            if skip.source < i <= skip.targets[-1]:
                more: dict[str, Any] = {"dim": stage.dim, "stage": i, "skip": number, "like": entry}
                ways[number] = self.add_op(f"skips.{number}.{i}", "skip", (ways[number],), skip.op, **more)
                if i in skip.targets:
                    inputs = (last, ways[number])
                    last = self.add(
                        f"{name}.add.{number}",
                        "add",
                        inputs,
                        stage=i,
                        path=skip.path,
                        roles=("skip",),
                        skip=number,
                    )
            if skip.source == i:
                ways[number] = entry
        return last

    def layers(self, stage: Stage, last: str, rates: list[float]) -> str:
        """The layers of a stage, between the entry to its windows and the exit from them."""
        name, before = f"stages.{stage.index}", last
        tiles: dict[str, Any] = {
            "stage": stage.index,
            "window": stage.window,
            "path": (*stage.path, "window"),
        }
        if stage.window is not None:
            last = self.add(f"{name}.window_in", "window_in", (last,), **tiles)
        feeds, outputs = self.feeds[stage.index], {STAGE_INPUT: last}
        for layer, rate in enumerate(rates):
            sources = feeds.get(layer, ())
            roles = tuple("inter" if s == STAGE_INPUT else "intra" for s in sources)
            last = self.layer(stage, layer, last, tuple(outputs[s] for s in sources), roles, rate)
            outputs[layer] = last
        if stage.window is not None:
            last = self.add(f"{name}.window_out", "window_out", (last,), like=before, **tiles)
        return last

    def layer(
        self,
        stage: Stage,
        layer: int,
        last: str,
        sources: tuple[str, ...],
        roles: tuple[str, ...],
        rate: float,
    ) -> str:
        """One layer: its branches in a row, one of them fed by the aggregator if there are sources."""
        _, branches = stage.layers[layer]
        place = f"stages.{stage.index}.layers.{layer}"
        common: dict[str, Any] = {"stage": stage.index, "layer": layer}
        fed = fed_branch(branches, self.make) if sources else None
        taken: dict[str, int] = {}
        for i, branch in enumerate(branches):
            impl = self.make(branch.op)
            norm = self.make(branch.norm) if branch.norm is not None else None
            inputs: tuple[str, ...] = (last,)
            if i == fed:
                assert isinstance(impl, Mixer)
                assert stage.aggregate is not None
                impl, width = impl.fed(stage.dim)
                fuse = self.add_op(
                    f"{place}.aggregate", "aggregator", (last, *sources), stage.aggregate,
                    norm=norm, norm_planned=branch.norm, dim=width, roles=roles, **common,
                )  # fmt: skip
                inputs, norm = (last, fuse), None
            op = branch.op.spec.op
            taken[op] = taken.get(op, 0) + 1
            name = f"{place}.{op}" + (f"_{taken[op]}" if taken[op] > 1 else "")
            last = self.add(
                name, impl.kind, inputs, impl=impl, planned=branch.op, path=branch.op.path, norm=norm,
                norm_planned=branch.norm, scale=branch.scale,
                drop_path=rate if branch.drop_path else 0.0, post_act=branch.post_act, **common,
            )  # fmt: skip
        return last


def fed_branch(branches: tuple[Branch, ...], make: Any) -> int | None:
    """The branch that an aggregator feeds: the first mixer with a norm before it, else the first mixer.

    A positional convolution (`norm: none`) may stand before the layer's real mixer.
    """
    mixers = [i for i, b in enumerate(branches) if isinstance(make(b.op), Mixer)]
    return next((i for i in mixers if branches[i].norm is not None), mixers[0] if mixers else None)


def _in_order(skips: tuple[Skip, ...]) -> list[tuple[int, Skip]]:
    """The skips with their numbers, in an order that does not depend on the order they are written in."""
    return sorted(enumerate(skips), key=lambda s: (s[1].source, s[1].targets, s[1].op.spec.op, repr(s[1].op.spec)))


def _check_size(plan: Plan, feeds: dict[int, Feeds], report: Report) -> None:
    """A few lines can ask for more layers than any machine takes."""
    nodes = sum(len(branches) for s in plan.stages for _, branches in s.layers)
    edges = nodes + sum(len(sources) for f in feeds.values() for sources in f.values())
    for what, count, limit in (("branches", nodes, MAX_NODES), ("edges", edges, MAX_EDGES)):
        if count > limit:
            text = f"the network has {count} {what}; {limit} are allowed"
            report_at(report, NOWHERE, "limit", text, ("stages",), hint="fewer layers, or fewer connections")
            break
    report.close()

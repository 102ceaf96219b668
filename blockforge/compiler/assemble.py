"""Plan -> graph: every block made, every node and edge in execution order. Shapes and costs come later.

A node is a mapping in the networkx graph; its name is the path of its module in the built model. `inputs`
lists the nodes it reads, in order. What the passes behind this one add is listed in `architecture`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
from pydantic import ValidationError

from blockforge.blocks import registry
from blockforge.blocks.base import Kind, Mixer, Op
from blockforge.compiler.connect import STAGE_INPUT, Rule, make_rule
from blockforge.errors import OpError, Path, Report
from blockforge.spec.plan import Branch, Plan, PlannedOp, Stage
from blockforge.spec.schema_errors import report_schema_errors

INPUT = "input"


def assemble(plan: Plan, report: Report) -> nx.DiGraph:
    """The graph of `plan`, without shapes. Raises: SpecError with every block that could not be made."""
    graph = _Assembler(plan, report).run()
    report.close()
    return graph


class _Assembler:
    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan, self.report = plan, report
        self.graph = nx.DiGraph()
        self.ops: dict[int, Op | None] = {}  # by the PlannedOp's id: many layers share one

    def run(self) -> nx.DiGraph:
        plan = self.plan
        self.add(INPUT, "input", (), path=("input",))
        last = self.add("stem", "stem", (INPUT,), op=plan.stem, dim=plan.stages[0].dim)
        skips: dict[int, list[str]] = {}
        layer = 0
        for stage in plan.stages:
            last = self.stage_input(stage, last, skips)
            last = self.layers(stage, last, layer)
            layer += len(stage.layers)
            if plan.stage_norm is not None:
                last = self.add(f"stages.{stage.index}.norm", "norm", (last,), op=plan.stage_norm, stage=stage.index)
        self.add("head", "head", (last,), op=plan.head, dim=plan.num_classes)
        return self.graph

    # --- nodes

    def add(self, name: str, kind: str, inputs: tuple[str, ...], *, op: PlannedOp | None = None, **more: Any) -> str:
        """A node and its edges. The first input is the main one; `roles` names the others'."""
        roles = more.pop("roles", ())
        path = op.path if op else more.pop("path", ())
        impl = self.make(op, *_KINDS[kind]) if op else None
        self.graph.add_node(name, kind=kind, inputs=inputs, impl=impl, planned=op, path=path, **{**_NODE, **more})
        for i, source in enumerate(inputs):
            role = roles[i - 1] if i and i <= len(roles) else "main"
            if not self.graph.has_edge(source, name):  # a layer's input may also be one of its sources
                self.graph.add_edge(source, name, role=role)
        return name

    def make(self, op: PlannedOp, *kinds: Kind) -> Op | None:
        """The block, made once for each place it is written; None where it has an error."""
        key = id(op)
        if key not in self.ops:
            self.ops[key] = self.attempt(op, lambda: registry.make(op.spec.op, op.spec.params, *kinds))
        return self.ops[key]

    def attempt(self, op: PlannedOp, make: Callable[[], Op]) -> Op | None:
        try:
            return make()
        except registry.ParamErrors as errors:
            for where, e in errors.errors:
                self.complain(op, e, where, on_key=e.code == "unknown-key")
        except OpError as e:
            self.complain(op, e, ("op",))
        return None

    def complain(self, op: PlannedOp, e: OpError, where: Path, on_key: bool = False) -> None:
        path = (*op.path, *where)
        related = op.related(path, self.plan.locs)
        if not any(d.path == path and d.message == str(e) for d in self.report.found):
            self.report.error(e.code, str(e), path, hint=e.hint, on_key=on_key, related=related)

    # --- stages

    def stage_input(self, stage: Stage, last: str, skips: dict[int, list[str]]) -> str:
        """Downsampling, and the long skips that arrive at or pass through this stage's input."""
        name, i = f"stages.{stage.index}", stage.index
        if stage.downsample is not None:
            last = self.add(f"{name}.downsample", "downsample", (last,), op=stage.downsample, dim=stage.dim, stage=i)
        entry = last
        for number, skip in enumerate(self.plan.skips):
            if skip.source < i <= skip.targets[-1]:
                way = skips.setdefault(number, [])
                made = self.add(
                    f"skips.{number}.{i}", "skip", (way[-1],), op=skip.op, dim=stage.dim, stage=i, skip=number
                )
                way.append(made)
                if i in skip.targets:
                    role = ("skip",)
                    last = self.add(f"{name}.add.{number}", "add", (last, made), stage=i, path=skip.path, roles=role)
            if skip.source == i:
                skips[number] = [entry]
        return last

    def layers(self, stage: Stage, last: str, first_layer: int) -> str:
        name, i = f"stages.{stage.index}", stage.index
        before = last
        if stage.window is not None:
            last = self.add(f"{name}.window_in", "window_in", (last,), stage=i, window=stage.window, path=(*stage.path, "window"))
        feeds = self.feeds(stage)
        outputs = {STAGE_INPUT: last}
        for layer, (_, branches) in enumerate(stage.layers):
            sources = tuple(outputs[s] for s in feeds.get(layer, ()))
            roles = tuple("inter" if s == STAGE_INPUT else "intra" for s in feeds.get(layer, ()))
            rate = self.plan.drop_path[first_layer + layer]
            last = self.layer(stage, layer, branches, last, sources, roles, rate)
            outputs[layer] = last
        if stage.window is not None:
            path: Path = (*stage.path, "window")
            last = self.add(f"{name}.window_out", "window_out", (last,), stage=i, window=stage.window, path=path, like=before)
        return last

    def layer(
        self,
        stage: Stage,
        layer: int,
        branches: tuple[Branch, ...],
        last: str,
        sources: tuple[str, ...],
        roles: tuple[str, ...],
        rate: float,
    ) -> str:
        """One layer: its branches in a row, the first mixing one fed by the aggregator if there are sources."""
        place = f"stages.{stage.index}.layers.{layer}"
        made = [(b, self.make(b.op, "mixer", "ffn"), self.norm(b)) for b in branches]
        fed = _fed_branch(made) if sources else None
        if sources and fed is None and all(impl for _, impl, _ in made):
            text = f"layer {layer} has no mixer for the aggregator to feed"
            self.report.error("connect", text, (*stage.path, "connect"))
        taken: dict[str, int] = {}
        for i, (branch, impl, norm) in enumerate(made):
            op_name = branch.op.spec.op
            taken[op_name] = taken.get(op_name, 0) + 1
            name = f"{place}.{op_name}" + (f"_{taken[op_name]}" if taken[op_name] > 1 else "")
            inputs: tuple[str, ...] = (last,)
            common: dict[str, Any] = {"stage": stage.index, "layer": layer}
            if i == fed and isinstance(impl, Mixer):
                impl, width = impl.fed(stage.dim)
                fuse = self.add(
                    f"{place}.aggregate", "aggregator", (last, *sources), op=stage.aggregate, norm=norm,
                    dim=width, roles=roles, **common,
                )  # fmt: skip
                inputs, norm = (last, fuse), None
            self.add(
                name, impl.kind if impl else "mixer", inputs, op=branch.op, norm=norm, scale=branch.scale,
                drop_path=rate if branch.drop_path else 0.0, **common,
            )  # fmt: skip
            self.graph.nodes[name]["impl"] = impl
            last = name
        return last

    def norm(self, branch: Branch) -> Op | None:
        return self.make(branch.norm, "norm") if branch.norm is not None else None

    def feeds(self, stage: Stage) -> dict[int, tuple[int, ...]]:
        """Receiving layer -> source layers, as the stage's rule says."""
        if stage.connect is None:
            return {}
        path: Path = (*stage.path, "connect")
        try:
            rule: Rule = make_rule(stage.connect.rule, stage.connect.model_extra or {})
            return rule.sources(len(stage.layers), first_stage=stage.index == 0)
        except OpError as e:
            at = (*path, e.param or "rule")
            self.report.error(e.code, str(e), at, hint=e.hint)
        except ValidationError as e:
            from blockforge.compiler.connect import RULES

            report_schema_errors(e, RULES[stage.connect.rule], self.report, path)
        return {}


_KINDS: dict[str, tuple[Kind, ...]] = {
    "stem": ("stem",),
    "downsample": ("downsample",),
    "skip": ("downsample",),
    "mixer": ("mixer", "ffn"),
    "ffn": ("mixer", "ffn"),
    "norm": ("norm",),
    "aggregator": ("aggregator",),
    "head": ("head",),
}
_NODE: dict[str, Any] = {"stage": None, "layer": None, "norm": None, "scale": None, "drop_path": 0.0, "dim": None}


def _fed_branch(made: list[tuple[Branch, Op | None, Op | None]]) -> int | None:
    """The branch that an aggregator feeds: the first mixer with a norm before it, else the first mixer.

    A positional convolution (`norm: none`) may stand before the layer's real mixer.
    """
    mixers = [i for i, (_, impl, _) in enumerate(made) if isinstance(impl, Mixer)]
    return next((i for i in mixers if made[i][2] is not None), mixers[0] if mixers else None)

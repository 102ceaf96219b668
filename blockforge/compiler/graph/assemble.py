"""Plan -> sites: every block made, and what stands where and reads what, in execution order. Shapes come later.

Whatever a site reads stands before it, so the graph has no cycles and the sites are its topological order.
"""

from __future__ import annotations

from blockforge.blocks.base import Act, Aggregator, Head, Mixer, Norm, Op
from blockforge.blocks.compose.steps import module_name
from blockforge.blocks.part import Join
from blockforge.compiler.graph.branch_keys import Residual
from blockforge.compiler.graph.branches import alone, is_residual
from blockforge.compiler.graph.connect import STAGE_INPUT, Feeds
from blockforge.compiler.graph.instantiate import Maker, mixes, placed_names
from blockforge.compiler.graph.sites import (
    AggregateSite,
    BranchSite,
    EdgeSite,
    HeadSite,
    ImageSite,
    JoinSite,
    NormSite,
    ReducingSite,
    Role,
    Site,
    SkipSite,
    SumSite,
    WindowInSite,
    WindowOutSite,
)
from blockforge.compiler.graph.widths import check_widths
from blockforge.errors import Report
from blockforge.spec import plan as spec_plan
from blockforge.spec.plan import Branch, Plan, PlannedOp, Reads, Skip, Source, Stage
from blockforge.spec.reporting import NOWHERE, report_at
from blockforge.spec.sources import INPUT, STEM

MAX_NODES = 20_000
MAX_EDGES = 50_000


def assemble(plan: Plan, report: Report) -> tuple[Site, ...]:
    """What `plan` says stands where. Raises: SpecError with every block that could not be made."""
    maker = Maker(report)
    maker.check_all(plan)
    check_widths(plan, maker, report)
    feeds = {s.index: maker.feeds(s) for s in plan.stages}
    report.close()
    _check_size(plan, feeds, report)
    return _Assembler(plan, maker, feeds).run()


class _Assembler:
    def __init__(self, plan: Plan, maker: Maker, feeds: dict[int, Feeds]) -> None:
        self.plan, self.maker, self.make, self.feeds = plan, maker, maker.make, feeds
        self.sites: list[Site] = []
        self.maps: dict[int | str, str] = {}
        """What gives the map that `from` names."""

    def run(self) -> tuple[Site, ...]:
        plan = self.plan
        last = self.maps[INPUT] = self.add(ImageSite(name=INPUT, inputs=(), path=(INPUT,)))
        if plan.stem is not None:
            last = self.maps[STEM] = self.reducing(STEM, last, plan.stem, plan.stem_dim)
        ways: dict[int, str] = {}
        rates = iter(plan.drop_path)
        for stage in plan.stages:
            last = self.read(f"stages.{stage.index}", stage.reads, stage.dim, stage.index)
            last = self.stage_input(stage, last, ways)
            last = self.layers(stage, last, [next(rates) for _ in stage.layers])
            if stage.norm is not None:
                last = self.stage_norm(stage.index, last, stage.norm)
            self.maps[stage.index] = last
        for head in plan.heads:
            self.head(head)
        return tuple(self.sites)

    def add(self, site: Site) -> str:
        self.sites.append(site)
        return site.name

    def head(self, head: spec_plan.Head) -> None:
        op, block = head.op, self.make(head.op, Head)
        last = self.read(head.path, head.reads, None, output=head.name)
        self.add(
            HeadSite(
                name=head.module, inputs=(last,), path=op.path, block=block, planned=op, output=head.name,
                num_classes=self.plan.num_classes,
            )
        )  # fmt: skip

    def reducing(self, name: str, source: str, op: PlannedOp, dim: int | None, stage: int | None = None) -> str:
        """The stem, or a downsample on the main path."""
        block = placed_names(self.make(op, Op), op)
        return self.add(
            ReducingSite(name=name, inputs=(source,), path=op.path, stage=stage, block=block, planned=op, dim=dim)
        )

    def stage_norm(self, stage: int, last: str, op: PlannedOp) -> str:
        """The norm at a stage's end."""
        name, block = f"stages.{stage}.norm", placed_names(self.make(op, Norm), op)
        return self.add(NormSite(name=name, inputs=(last,), path=op.path, stage=stage, block=block, planned=op))

    # --- stages

    def read(
        self, name: str, reads: Reads, dim: int | None, stage: int | None = None, output: str | None = None
    ) -> str:
        """What a stage or a head called `name` reads: its sources, through their ops, joined. `dim`: the width that ops
        are asked for."""
        join = self.make(reads.join, Join) if len(reads.sources) > 1 else None
        numbered = list(enumerate(reads.sources))
        if join is not None and join.commutes:
            numbered.sort(key=_any_order)
        inputs = []
        for i, source in numbered:
            given = self.maps[source.of]
            if source.op is not None:
                block = placed_names(self.make(source.op, Op), source.op)
                given = self.add(
                    EdgeSite(
                        name=f"{name}.from_{i}", inputs=(given,), path=source.op.path, stage=stage, output=output,
                        block=block, planned=source.op, dim=dim,
                    )
                )  # fmt: skip
            inputs.append(given)
        if join is None:
            return inputs[0]
        asked = self.maker.widths.get(id(reads.join))
        return self.add(
            JoinSite(
                name=f"{name}.join", inputs=tuple(inputs), path=reads.join.path, stage=stage, output=output,
                block=join, planned=reads.join, dim=asked,
            )
        )  # fmt: skip

    def stage_input(self, stage: Stage, last: str, ways: dict[int, str]) -> str:
        """Downsampling, and the long skips that arrive at or pass through this stage's input.

        `ways`: how far each skip has come, by its number.
        """
        i = stage.index
        if stage.downsample is not None:
            last = self.reducing(f"stages.{i}.downsample", last, stage.downsample, stage.dim, i)
        entry = last
        for number, skip in _in_order(self.plan.skips):
            if skip.source < i <= skip.targets[-1]:
                block = placed_names(self.make(skip.op, Op), skip.op)
                site = SkipSite(
                    name=f"skips.{number}.{i}", inputs=(ways[number],), path=skip.op.path, stage=i, block=block,
                    planned=skip.op, dim=stage.dim, like=entry,
                )  # fmt: skip
                ways[number] = self.add(site)
                if i in skip.targets:
                    name, inputs = f"stages.{i}.add.{number}", (last, ways[number])
                    last = self.add(SumSite(name=name, inputs=inputs, path=skip.path, roles=("skip",), stage=i))
            if skip.source == i:
                ways[number] = entry
        return last

    def layers(self, stage: Stage, last: str, rates: list[float]) -> str:
        """The layers of a stage, between the entry to its windows and the exit from them."""
        i, window, before = stage.index, stage.window, last
        path = (*stage.path, "window")
        if window is not None:
            name = f"stages.{i}.window_in"
            last = self.add(WindowInSite(name=name, inputs=(last,), path=path, stage=i, window=window))
        feeds, outputs = self.feeds[i], {STAGE_INPUT: last}
        for layer, rate in enumerate(rates):
            sources = feeds.get(layer, ())
            roles: tuple[Role, ...] = tuple("inter" if s == STAGE_INPUT else "intra" for s in sources)
            last = self.layer(stage, layer, last, tuple(outputs[s] for s in sources), roles, rate)
            outputs[layer] = last
        if window is not None:
            name = f"stages.{i}.window_out"
            last = self.add(WindowOutSite(name=name, inputs=(last,), path=path, stage=i, window=window, like=before))
        return last

    def layer(
        self, stage: Stage, layer: int, last: str, sources: tuple[str, ...], roles: tuple[Role, ...], rate: float
    ) -> str:
        """One layer: its branches in a row, one of them fed by the aggregator if there are sources."""
        _, branches = stage.layers[layer]
        within = f"stages.{stage.index}.layers.{layer}"
        fed = self.fed_branch(branches, stage.dim) if sources else None
        taken: dict[str, int] = {}
        for i, branch in enumerate(branches):
            written = block = placed_names(self.make(branch.op, Op), branch.op, drop_path=rate)
            branch = alone(branch) if is_residual(branch) else branch
            norm = None
            if branch.norm is not None:
                norm = placed_names(self.make(branch.norm, Norm), branch.norm, drop_path=rate)
            post_act = self.make(branch.post_act, Act) if branch.post_act is not None else None
            inputs: tuple[str, ...] = (last,)
            if i == fed:
                assert stage.aggregate is not None
                assert stage.dim is not None
                block, width = block.fed(stage.dim) if isinstance(block, Mixer) else (block, stage.dim)
                aggregate = AggregateSite(
                    name=f"{within}.aggregate", inputs=(last, *sources), path=stage.aggregate.path, roles=roles,
                    stage=stage.index, layer=layer, within=within, norm=norm, norm_planned=branch.norm,
                    block=self.make(stage.aggregate, Aggregator), planned=stage.aggregate, dim=width,
                )  # fmt: skip
                inputs, norm = (last, self.add(aggregate)), None
            op = module_name(block.title)
            taken[op] = taken.get(op, 0) + 1
            key = op + (f"_{taken[op]}" if taken[op] > 1 else "")
            site = BranchSite(
                name=f"{within}.{key}", inputs=inputs, path=branch.op.path, stage=stage.index, layer=layer,
                within=within, key=key, block=block, written=written, planned=branch.op, norm=norm,
                norm_planned=branch.norm, residual=Residual.of(branch.keys, rate, post_act), dim=stage.dim,
                ends=i == len(branches) - 1,
            )  # fmt: skip
            last = self.add(site)
        return last

    def fed_branch(self, branches: tuple[Branch, ...], dim: int | None) -> int | None:
        """The branch that an aggregator feeds: the first mixer with a norm before it, else the first mixer.

        A positional convolution (`norm: none`) may stand before the layer's real mixer.
        """
        mixers = [i for i, b in enumerate(branches) if mixes(self.make(b.op, Op), dim)]
        return next((i for i in mixers if branches[i].norm is not None), mixers[0] if mixers else None)


def _any_order(numbered: tuple[int, Source]) -> tuple[bool, str, str]:
    """Sorts what may be joined in any order, so that it does not matter in which it is written."""
    source = numbered[1]
    return isinstance(source.of, int), f"{source.of:>9}", repr(source.op.spec) if source.op is not None else ""


def _in_order(skips: tuple[Skip, ...]) -> list[tuple[int, Skip]]:
    """The skips with their numbers, in an order that does not depend on the order they are written in."""
    return sorted(enumerate(skips), key=lambda s: (s[1].source, s[1].targets, s[1].op.spec.op, repr(s[1].op.spec)))


def _check_size(plan: Plan, feeds: dict[int, Feeds], report: Report) -> None:
    """A few lines can ask for more layers than any machine takes."""
    branches = sum(len(branches) for s in plan.stages for _, branches in s.layers)
    edges = branches + sum(len(sources) for f in feeds.values() for sources in f.values())
    edges += sum(len(s.reads.sources) for s in plan.stages if s.reads.written) + sum(
        s.targets[-1] - s.source for s in plan.skips
    )
    for what, count, limit in (("branches", branches, MAX_NODES), ("edges", edges, MAX_EDGES)):
        if count > limit:
            text = f"the network has {count} {what}; {limit} are allowed"
            report_at(report, NOWHERE, "limit", text, ("stages",), hint="fewer layers, or fewer connections")
            break
    report.close()

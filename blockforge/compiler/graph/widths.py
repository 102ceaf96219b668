"""Whether the widths that the stem and the stages promise meet, as far as that is known before shapes are."""

from __future__ import annotations

from blockforge.blocks.base import MapOp, Reducing
from blockforge.compiler.graph.instantiate import Maker
from blockforge.errors import Report
from blockforge.spec.plan import Plan, PlannedOp, Stage
from blockforge.spec.reporting import report_at
from blockforge.spec.sources import STEM


def check_widths(plan: Plan, maker: Maker, report: Report) -> None:
    """Without a downsample, and with a first layer that keeps its map, the width cannot change."""
    for stage in plan.stages:
        if _is_empty(stage):
            text = f"{stage} has neither layers nor a downsample"
            hint = "leave it out, or give it layers; layers: [identity] keeps the map"
            report_at(report, stage.origins, "layers", text, stage.path, hint=hint)
        if stage.dim is None:
            _check_free(stage, maker, report)
        _check_kept(stage, plan, maker, report)
    if plan.stem is not None:
        hint = "give the stage that reads the stem a dim"
        _check_asked(
            plan.stem, plan.stem_dim, "give stage 0 a dim" if not plan.stages[0].reads.written else hint, maker, report
        )


def _is_empty(stage: Stage) -> bool:
    """Whether a stage would give what it reads."""
    one = len(stage.reads.sources) == 1 and stage.reads.sources[0].op is None
    return one and not stage.layers and stage.downsample is None and stage.norm is None


def _check_kept(stage: Stage, plan: Plan, maker: Maker, report: Report) -> None:
    """Report a stage that reads one map as it is, keeps its width, and promises another."""
    source, *others = stage.reads.sources
    if others or source.op is not None or not _keeps(stage, maker) or stage.dim is None:
        return
    if isinstance(source.of, int):
        before = plan.stages[source.of]
        if before.dim is None or before.dim == stage.dim:
            return
        text, gives = f"{stage} has dim {stage.dim}, {before} gives {before.dim}", f"{before} gives {before.dim}"
        loc = report.locs.value((*before.path, "dim"))
        report_at(
            report, stage.origins, "dim", f"{text}, and no downsample stands between them",
            (*stage.path, "dim"), hint=f"add a downsample, or set dim to {before.dim}",
            related=[(gives, loc)] if loc else [],
        )  # fmt: skip
    elif source.of == STEM and plan.stem is not None and plan.stem_dim not in (None, stage.dim):
        text = f"the stem has dim {plan.stem_dim}, {stage} has {stage.dim}, and no downsample stands between them"
        loc = report.locs.value((*stage.path, "dim"))
        report_at(
            report, plan.stem.origins, "dim", text, ("stem", "dim"),
            hint=f"leave dim out here, or give {stage} a downsample",
            related=[(f"{stage} has {stage.dim}", loc)] if loc else [],
        )  # fmt: skip


def _check_free(stage: Stage, maker: Maker, report: Report) -> None:
    """Report what a stage without a width cannot have."""
    if stage.connect is not None:
        text, hint = "connect needs a stage with a dim", "aggregators are asked for the stage's width: give it a dim"
        report_at(report, stage.origins, "dim", text, (*stage.path, "connect"), hint=hint)
    for op in (stage.downsample, *(source.op for source in stage.reads.sources)):
        if op is not None:
            _check_asked(op, None, f"give stage {stage.index} a dim", maker, report)


def _check_asked(op: PlannedOp, dim: int | None, hint: str, maker: Maker, report: Report) -> None:
    """Report a block that gives the width it is asked for where nobody asks."""
    block = maker.ops.get(id(op))
    if dim is None and isinstance(block, Reducing):
        text = f"'{block.op}' needs to be told a width, and its stage has no dim"
        report_at(report, op.origins, "dim", text, op.path, hint=hint)


def _keeps(stage: Stage, maker: Maker) -> bool:
    """Whether what a stage reads is as wide as what its layers give, whatever the map."""
    if stage.downsample is not None:
        return False
    first = stage.layers[0][1] if stage.layers else ()
    return all(isinstance(maker.ops.get(id(branch.op)), MapOp) for branch in first)

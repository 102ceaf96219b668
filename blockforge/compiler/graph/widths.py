"""Whether the widths that the stem and the stages promise meet, as far as that is known before shapes are."""

from __future__ import annotations

import itertools

from blockforge.blocks.base import MapOp, Reducing
from blockforge.compiler.graph.instantiate import Maker
from blockforge.errors import Report
from blockforge.spec.plan import Plan, PlannedOp, Stage
from blockforge.spec.reporting import report_at


def check_widths(plan: Plan, maker: Maker, report: Report) -> None:
    """Without a downsample, and with a first layer that keeps its map, the width cannot change."""
    for stage in plan.stages:
        if not stage.layers and stage.downsample is None:
            text, hint = f"stage {stage.index} has neither layers nor a downsample", "leave it out, or give it layers"
            report_at(report, stage.origins, "layers", text, stage.path, hint=hint)
        if stage.dim is None:
            _check_free(stage, maker, report)
    _check_asked(plan.stem, plan.stem_dim, "give stage 0 a dim", maker, report)
    first = plan.stages[0]
    if _keeps(first, maker) and None not in (plan.stem_dim, first.dim) and plan.stem_dim != first.dim:
        text = f"the stem has dim {plan.stem_dim}, stage 0 has {first.dim}, and no downsample stands between them"
        loc = report.locs.value((*first.path, "dim"))
        report_at(
            report, plan.stem.origins, "dim", text, ("stem", "dim"),
            hint="leave dim out here, or give stage 0 a downsample",
            related=[(f"stage 0 has {first.dim}", loc)] if loc else [],
        )  # fmt: skip
    for before, stage in itertools.pairwise(plan.stages):
        if _keeps(stage, maker) and None not in (stage.dim, before.dim) and stage.dim != before.dim:
            text = f"stage {stage.index} has dim {stage.dim}, stage {before.index} gives {before.dim}"
            loc = report.locs.value((*before.path, "dim"))
            report_at(
                report, stage.origins, "dim", f"{text}, and no downsample stands between them",
                (*stage.path, "dim"), hint=f"add a downsample, or set dim to {before.dim}",
                related=[(f"stage {before.index} gives {before.dim}", loc)] if loc else [],
            )  # fmt: skip


def _check_free(stage: Stage, maker: Maker, report: Report) -> None:
    """Report what a stage without a width cannot have."""
    if stage.connect is not None:
        text, hint = "connect needs a stage with a dim", "aggregators are asked for the stage's width: give it a dim"
        report_at(report, stage.origins, "dim", text, (*stage.path, "connect"), hint=hint)
    if stage.downsample is not None:
        _check_asked(stage.downsample, None, f"give stage {stage.index} a dim", maker, report)


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

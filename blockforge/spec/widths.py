"""Widths of neighbours in a plan: without a downsample between two of them, both have one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from blockforge.errors import Report
from blockforge.spec.plan import Stage
from blockforge.spec.reporting import Origins, report_at


def check_stem(dim: int, first: Stage, origins: Origins, report: Report) -> None:
    """Report a stem whose width is not that of stage 0. `origins`: of the stem's values."""
    if first.downsample is None and dim != first.dim:
        text = f"the stem has dim {dim}, stage 0 has {first.dim}, and no downsample stands between them"
        loc = report.locs.value((*first.path, "dim"))
        report_at(
            report, origins, "dim", text, ("stem", "dim"),
            hint="leave dim out here, or give stage 0 a downsample",
            related=[(f"stage 0 has {first.dim}", loc)] if loc else [],
        )  # fmt: skip


def check_stages(stages: Sequence[Stage], report: Report) -> None:
    """Report each stage whose width is not that of the one before it."""
    for before, stage in itertools.pairwise(stages):
        if stage.downsample is None and stage.dim != before.dim:
            text = f"stage {stage.index} has dim {stage.dim}, stage {before.index} gives {before.dim}"
            loc = report.locs.value((*before.path, "dim"))
            report_at(
                report, stage.origins, "dim", f"{text}, and no downsample stands between them",
                (*stage.path, "dim"), hint=f"add a downsample, or set dim to {before.dim}",
                related=[(f"stage {before.index} gives {before.dim}", loc)] if loc else [],
            )  # fmt: skip

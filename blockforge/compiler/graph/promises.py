"""The width that a stage promises, and what is to blame where it is not given."""

from __future__ import annotations

from collections.abc import Mapping

from blockforge.blocks.base import AnyPlaced, Shape
from blockforge.blocks.compose.program import Step, can_give
from blockforge.compiler.graph.nodes import Shapes
from blockforge.compiler.graph.sites import AskedSite, BranchSite, EdgeSite, ReducingSite, Site
from blockforge.errors import OpError, paths_differ
from blockforge.spec.plan import Stage

_PROMISED = "dim: $out asks an op for the stage's width; a stage without dim is as wide as its layers make it"
_ANY = "an op that takes dim: $out, such as a conv,"


def wrong_width(site: BranchSite, shape: Shape, out: Shape, placed: AnyPlaced) -> OpError | None:
    """What is wrong with the map that a branch gives: its identity path has another, or its stage promises another."""
    if site.residual.keys.skip and out != shape:
        hint = paths_differ(out.dim != shape.dim)
        return OpError(f"the op gives {out}, the identity path {shape}", hint=hint)
    if site.ends and site.dim is not None and out.dim != site.dim:
        return broken_promise(site, "the layer", out, placed, _PROMISED)
    return None


def broken_promise(site: BranchSite | AskedSite, what: str, out: Shape, placed: AnyPlaced, hint: str) -> OpError:
    """A stage's width that is not given: by the op that gives another or should have been asked, where it is written
    if that is in the block itself."""
    step = _last_to_ask(placed, site.dim)
    named = f"'{step.op.op}'" if step is not None else what
    error = OpError(f"{named} gives {out.dim} channels, its stage has dim {site.dim}", hint=hint, code="dim")
    return error.placed_at(step.at) if step is not None and _is_within(step, site) else error


def entry_to_blame(
    site: BranchSite, shape: Shape, out: Shape, sites: Mapping[str, Site], shapes: Mapping[str, Shapes], stage: Stage
) -> tuple[AskedSite, OpError] | None:
    """What makes the map that a branch's stage begins with, the stem, a downsample or an op on an edge, and what is
    wrong with it, where it gave the wrong width that the layers behind it kept. None where that is the branch's doing,
    or the branch alone holds an op that gives another width.

    Args:
        shape: what the branch reads.
        out: what it gives.
    """
    entry, dim = sites[site.inputs[0]], site.dim
    while entry.stage == site.stage and not isinstance(entry, AskedSite):
        entry = sites[entry.inputs[0]]
    if not isinstance(entry, EdgeSite | ReducingSite) or entry.dim != dim or dim is None:
        return None
    given = shapes[entry.name]
    if given.placed is None or not given.out_shape.dim == shape.dim == out.dim:
        return None
    step = _last_to_ask(given.placed, dim)
    if step is None and not site.residual.keys.skip and _last_to_ask(site.at(shape, ()), dim) is not None:
        return None
    what = "the stem" if entry.stage is None else "the downsample" if isinstance(entry, ReducingSite) else "the op"
    own = step if step is not None and _is_within(step, entry) else None
    asked = f"dim: $out on '{own.op.op}'" if own is not None and can_give(own.op, own.placed.place[0], dim) else _ANY
    text, hint = f"{what} gives {out.dim} channels, {stage} has dim {dim}", "gives the stage's width"
    error = OpError(text, hint=f"{asked} {hint}; else the first layer of {stage} must", code="dim")
    if entry.stage is None:
        error.sources = [(f"{stage} has dim {dim}", ("stages", stage.index, "dim"))]
    return entry, error.placed_at(own.at) if own is not None else error


def _last_to_ask(placed: AnyPlaced, dim: int | None) -> Step | None:
    """The last step of an op that gives it its width, or could."""
    program = placed.op.as_program(*placed.place)
    return program.widened_by(dim) if program is not None else None


def _is_within(step: Step, site: BranchSite | AskedSite) -> bool:
    """Whether a step is written in the block itself, and in no definition."""
    return step.at[: len(site.planned.path)] == site.planned.path

"""Sites -> shapes: what every node reads and gives, and whether every block can stand where it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blockforge.blocks.base import AnyPlaced, MapOp, Placed, Reducing, Shape
from blockforge.blocks.facts import facts
from blockforge.blocks.joins.meeting import unasked_width
from blockforge.blocks.tokens import refusal, refusal_inside
from blockforge.blocks.windows import tiles_along
from blockforge.compiler.graph.nodes import Shapes
from blockforge.compiler.graph.promises import broken_promise, entry_to_blame, wrong_width
from blockforge.compiler.graph.sites import (
    AggregateSite,
    AskedSite,
    BlockSite,
    BranchSite,
    EdgeSite,
    ImageSite,
    JoinSite,
    NormedSite,
    ReducingSite,
    Site,
    SkipSite,
    SumSite,
    WindowInSite,
    WindowOutSite,
)
from blockforge.compiler.maps import FAR, Rounding, fitted, rounding
from blockforge.errors import Loc, OpError, Path, Report
from blockforge.spec.plan import Head, Plan, PlannedOp, Stage
from blockforge.spec.reporting import NOWHERE, report_at

MAX_ELEMENTS = 2**40
MAX_PARTS = 50_000
"""Of a network, those inside composed blocks counted."""
MAX_SOURCES = 8
"""Of a join, those that an error shows."""
MAX_CALLS = 4
"""Places of calls that an error in a definition shows."""


@dataclass
class _Mistake:
    """An error in one place, which `more` further layers have too."""

    site: BlockSite
    planned: PlannedOp
    shape: Shape
    error: OpError
    more: int = 0


def infer(sites: Iterable[Site], plan: Plan, report: Report) -> dict[str, Shapes]:
    """The shapes of every site, by name. Raises: SpecError with every block that cannot stand where it is."""
    shapes = _Infer(plan, report).run(sites)
    report.close()
    return shapes


class _Infer:
    def __init__(self, plan: Plan, report: Report) -> None:
        self.plan, self.report = plan, report
        self.shapes: dict[str, Shapes] = {}
        self.sites: dict[str, Site] = {}
        self.downsamples: dict[int, ReducingSite] = {}
        """Those on the main path, by stage."""
        self.mistakes: dict[tuple[Path, str], _Mistake] = {}
        self.parts, self.is_too_much = 0, False

    def run(self, sites: Iterable[Site]) -> dict[str, Shapes]:
        for site in sites:
            self.sites[site.name] = site
            shapes = self.of(site)
            if shapes is None or self.is_too_much:
                break  # nobody knows the shapes behind this node, or wants to
            self.shapes[site.name] = shapes
        for (path, _), mistake in self.mistakes.items():
            self._tell(path, mistake)
        return self.shapes

    def of(self, site: Site) -> Shapes | None:
        """The shapes of one site; None where it gives none."""
        match site:
            case ImageSite():
                height, width = self.plan.input.size
                image = Shape(height, width, self.plan.input.channels)
                return Shapes(image, image)
            case SumSite():
                return self._sum(site)
            case WindowInSite():
                return self._window_in(site)
            case WindowOutSite():
                return self._window_out(site)
            case JoinSite():
                return self._join(site)
            case BlockSite():
                return self._block(site)
        raise AssertionError(site)

    def _block(self, site: BlockSite) -> Shapes | None:
        """Any site that runs a block."""
        main, *beside = (self.shapes[i] for i in site.inputs)
        if isinstance(site, BranchSite):
            main = self.shapes[site.inputs[-1]]  # what an aggregator gives, if one feeds it
        shape, up = main.out_shape, None
        if isinstance(site, SkipSite):
            shape, up = self._fitted(site, shape)
        elif isinstance(site, ReducingSite) and site.stage is not None:
            self.downsamples[site.stage] = site
        if isinstance(site, AggregateSite) and (other := _meets_not(shape, [s.out_shape for s in beside])) is not None:
            text = f"a source of {other} does not meet the layer's input of {shape}"
            hint = "layers that are connected keep the size of the map and the tokens beside it"
            self._complain(site, site.planned, shape, OpError(text, hint=hint, code="sizes"))
        placed = site.at(shape, tuple(s.out_shape for s in beside))
        out = self._ask(site, site.planned, placed)
        if isinstance(site, NormedSite) and site.norm is not None and site.norm_planned is not None:
            self._ask(site, site.norm_planned, Placed(site.norm, (shape,)))
        if out is None and isinstance(site, BranchSite):
            out = shape._replace(dim=site.dim or shape.dim)  # what it should give: go on to find the other mistakes
        elif out is None and isinstance(site.block, MapOp):
            out = shape
        if out is None:
            return None
        if isinstance(site, BranchSite):
            around = self.shapes[site.inputs[0]].out_shape
            if (wrong := wrong_width(site, around, out, placed)) is not None:
                self._blame(site, shape, out, wrong)
                out = (around if site.residual.keys.skip else out)._replace(dim=site.dim or around.dim)
        if isinstance(site, AskedSite) and self._breaks_promise(site, out):
            what = "the downsample" if isinstance(site, ReducingSite) else "the op"
            wrong = broken_promise(site, what, out, placed, "dim: $out asks an op for it")
            self._complain(site, site.planned, shape, wrong)
        if out.elements * main.windows > MAX_ELEMENTS:
            self._complain(site, site.planned, shape, OpError(f"a map of {out} is too large", code="size"))
            return None
        reduction = reduction_behind(site, shape, out, main.reduction)
        return Shapes(shape, out, main.windows, reduction, placed, up)

    def _join(self, site: JoinSite) -> Shapes | None:
        """Where the maps that a stage reads become one."""
        read = [self.shapes[name] for name in site.inputs]
        first, *beside = (s.out_shape for s in read)
        placed = site.at(first, tuple(beside))
        try:
            out = facts(placed).out_shape
        except OpError as e:
            self._tell_apart(site, e)
            return None
        if site.dim not in (None, out.dim):
            self._tell_apart(site, unasked_width(placed.op.op, out.dim, site.dim))
            return None
        if self._breaks_promise(site, out):
            text = f"what it reads has {out.dim} channels together, the stage has dim {self._stage(site).dim}"
            self._tell_apart(site, OpError(text, hint="an op on an edge gives its map the stage's width", code="dim"))
            out = out._replace(dim=self._stage(site).dim or out.dim)
        if out.elements > MAX_ELEMENTS:
            self._complain(site, site.planned, first, OpError(f"a map of {out} is too large", code="size"))
            return None
        like = next((s for s in read if s.out_shape[:2] == out[:2]), read[0])
        return Shapes(first, out, reduction=like.reduction, placed=placed)

    def _tell_apart(self, site: JoinSite, e: OpError) -> None:
        """Report maps that do not meet: each with where it comes from."""
        reader, related = self._reader(site), list[tuple[str, Loc]]()
        for name in site.inputs[:MAX_SOURCES]:
            given = self.sites[name]
            path = ("stages", given.stage) if given.stage is not None and given.stage != site.stage else given.path
            if (loc := self.plan.locs.value(path)) is not None:
                related.append((f"{_said(given, self.plan)} gives {self.shapes[name].out_shape}", loc))
        planned = site.planned
        path = (*planned.path, e.param) if e.param and planned.path[-1] == "join" else planned.path
        report_at(self.report, planned.origins, e.code, f"{reader}: {e}", path, hint=e.hint, related=related)

    def _stage(self, site: Site) -> Stage:
        assert site.stage is not None
        return self.plan.stages[site.stage]

    def _reader(self, site: Site) -> Stage | Head:
        """What reads the maps that meet at a site."""
        if site.stage is not None:
            return self.plan.stages[site.stage]
        return next(head for head in self.plan.heads if head.name == site.output)

    def _breaks_promise(self, site: AskedSite, out: Shape) -> bool:
        """Whether what is all of a stage gives another width than the stage's."""
        if site.stage is None or isinstance(site, SkipSite):
            return False
        stage = self._stage(site)
        is_end = isinstance(site, ReducingSite) or (
            stage.downsample is None and (isinstance(site, JoinSite) or len(stage.reads.sources) == 1)
        )
        return is_end and not stage.layers and stage.dim not in (None, out.dim)

    def _fitted(self, site: SkipSite, shape: Shape) -> tuple[Shape, Rounding | None]:
        """What the block of a long skip reads: a map of which it makes one as large as the main path's, if rounding
        is all that keeps it from that."""
        block, dim, stage = site.block, site.dim, self.downsamples.get(site.stage or 0)
        up = rounding(block, shape, dim) if dim is not None else None
        if up is None or dim is None:
            return shape, None
        main = self.shapes[site.like]
        if stage is not None and rounding(stage.block, self.shapes[stage.name].in_shape, dim) == up:
            return shape, None
        height, width = (fitted(side, to, up) for side, to in zip(shape[:2], main.out_shape[:2], strict=True))
        if max(abs(height - shape.height), abs(width - shape.width)) >= len(up):
            return shape, None  # another stride: where the skip arrives, both shapes are told
        return shape._replace(height=height, width=width), up

    def _ask(self, site: BlockSite, planned: PlannedOp, placed: AnyPlaced) -> Shape | None:
        try:
            block_facts = facts(placed)
            self.parts += block_facts.num_parts
            if self.parts > MAX_PARTS and not self.is_too_much:
                raise OpError(f"the network has more than {MAX_PARTS} parts", hint="fewer layers", code="limit")
            return block_facts.out_shape
        except OpError as e:
            self.is_too_much = self.is_too_much or e.code == "limit"
            for each in (e, *e.also):
                self._complain(site, planned, placed.place[0], each)
        return None

    def _sum(self, site: SumSite) -> Shapes:
        """A long skip that arrives: both maps must be of one shape."""
        main, skip = (self.shapes[n] for n in site.inputs)
        shape, other = main.out_shape, skip.out_shape
        if shape != other or main.reduction != skip.reduction:
            there, here = self.plan.locs.value(("stages", site.stage or 0)), self.plan.locs.value(site.path)
            gives, adds = f"stage {site.stage} takes {shape}", f"the skip adds {other}"
            if shape == other:  # at this size of the image, and at no other
                gives, adds = f"{gives} of stride {main.reduction}", f"{adds} of stride {skip.reduction}"
            text = f"{gives}{_line(there)}, {adds}{_line(here)}"
            op = skip.placed.op.op if skip.placed is not None else "the skip"
            hint = f"'{op}' and the stage's downsample must give maps of one size; choose another op here"
            related = [(gives, there)] if there else []
            report_at(self.report, NOWHERE, "skip-shape", text, site.path, hint=hint, related=related)
        return Shapes(shape, shape, reduction=main.reduction)

    def _window_in(self, site: WindowInSite) -> Shapes:
        main, window = self.shapes[site.inputs[0]], site.window
        shape = main.out_shape
        if shape.extra:
            e = refusal("window", shape)
            self.report.error(e.code, str(e), site.path, hint=e.hint)
        if window > max(shape.height, shape.width):
            size = f"{shape.height}x{shape.width}"
            text = f"window {window} is larger than the map of stage {site.stage}, {size}"
            hint = f"zeros fill the rest; a window of {max(shape.height, shape.width)} covers the whole map"
            self.report.warn("window", text, site.path, hint=hint)
        windows = tiles_along(shape.height, window) * tiles_along(shape.width, window)
        return Shapes(shape, Shape(window, window, shape.dim), windows, main.reduction)

    def _blame(self, site: BranchSite, shape: Shape, out: Shape, wrong: OpError) -> None:
        """Report a branch's wrong width, or the entry of its stage that gave it."""
        stage = self._stage(site)
        blamed = entry_to_blame(site, shape, out, self.sites, self.shapes, stage) if wrong.code == "dim" else None
        if blamed is None:
            self._complain(site, site.planned, shape, wrong)
        else:
            entry, error = blamed
            self._complain(entry, entry.planned, self.shapes[entry.name].in_shape, error)

    def _window_out(self, site: WindowOutSite) -> Shapes:
        """Tiles of a kept size make up the map that they were cut from; of another size what they give side by side."""
        given, like = self.shapes[site.inputs[0]], self.shapes[site.like]
        tile, whole, window = given.out_shape, like.out_shape, site.window
        if tile.extra:
            e = refusal_inside("window", tile)
            self.report.error(e.code, str(e), site.path, hint=e.hint)
        if tile[:2] == (window, window):
            return Shapes(tile, whole._replace(dim=tile.dim), reduction=like.reduction)
        height, width = (n * tiles_along(side, window) for n, side in zip(tile[:2], whole[:2], strict=True))
        return Shapes(tile, Shape(height, width, tile.dim), reduction=given.reduction)

    def _complain(self, site: BlockSite, planned: PlannedOp, shape: Shape, e: OpError) -> None:
        """Note a block that cannot stand at a place; once, however many layers it is in."""
        path = e.at or ((*planned.at, e.param) if e.param else planned.path)
        if (known := self.mistakes.get((path, e.code))) is None:
            self.mistakes[path, e.code] = _Mistake(site, planned, shape, e)
        elif known.site is not site:
            known.more += 1

    def _tell(self, path: Path, mistake: _Mistake) -> None:
        """Report a mistake, with the way to it."""
        site, e, stage = mistake.site, mistake.error, mistake.site.stage
        related: list[tuple[str, Loc]] = []
        if stage is not None and not e.is_of_text:
            dim, loc = self.plan.stages[stage].dim, self.plan.locs.value(("stages", stage, "dim"))
            related = [(f"stage {stage} has dim {dim}", loc)] if dim is not None and loc is not None else []
        further = f", and in {mistake.more} more places" if mistake.more > 1 else ", and in 1 more place"
        text = f"{e} (in {site.name}, on a map of {mistake.shape}{further if mistake.more else ''})"
        calls = [*e.calls[: MAX_CALLS - 1], *e.calls[max(MAX_CALLS - 1, len(e.calls) - 1) :]]
        ways = [*e.sources[:MAX_SOURCES], *((f"{what} is called here", at) for what, at in calls)]
        related += [(text, loc) for text, at in ways if (loc := self.plan.locs.value(at)) is not None]
        origins, on_key = mistake.planned.origins, e.code in ("unknown-key", "name")
        report_at(self.report, origins, e.code, text, path, hint=e.hint, on_key=on_key, related=related)


def reduction_behind(site: BlockSite, shape: Shape, out: Shape, before: int) -> int:
    """Pixels of the image along a side for one position behind a site that makes a map `out` of one of `shape`."""
    if isinstance(site.block, Reducing):
        return before * site.block.total_stride(shape, site.at(shape, ()).place[1])
    if out[:2] == shape[:2] and not isinstance(site, AskedSite):
        return before
    return max(1, round(before * _shrinks(site, shape, out)))


def _shrinks(site: BlockSite, shape: Shape, out: Shape) -> float:
    """How many positions along a side stand for one behind a site; less than 1: it makes maps larger."""
    try:  # on a map that is large beside every kernel: of a small one rounding hides what it is
        near, far = (
            facts(site.at(shape._replace(height=side, width=side), ())).out_shape.height for side in (FAR, 2 * FAR)
        )
        return FAR / (far - near)
    except (OpError, ZeroDivisionError):  # made for one size
        return shape.height / out.height


def _said(site: Site, plan: Plan) -> str:
    """What gives a map, in words."""
    if isinstance(site, EdgeSite):
        return f"'{site.block.title}'"
    return str(plan.stages[site.stage]) if site.stage is not None else f"the {site.name}"


def _meets_not(shape: Shape, sources: list[Shape]) -> Shape | None:
    """A source that has not as many positions and tokens as a map."""
    return next((s for s in sources if s._replace(dim=shape.dim) != shape), None)


def _line(loc: Loc | None) -> str:
    return f" (line {loc.line})" if loc else ""

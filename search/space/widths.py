"""The widths of a compiled network: which there are, which values its blocks accept, and what others would cost.

Stages without a downsample between them have one width together, and so have the stem and what reads it, and maps that
are added up.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.blocks.base import Aggregator, AnyOp, MapOp, Reducing, Shape
from blockforge.blocks.compose.expand import Composite
from blockforge.blocks.part import Join
from blockforge.compiler import Architecture
from blockforge.compiler.graph.sites import (
    BlockSite,
    BranchSite,
    EdgeSite,
    JoinSite,
    NormedSite,
    ReducingSite,
    SkipSite,
)
from blockforge.compiler.pipeline import compile_plan
from blockforge.errors import Diagnostic, OpError, Path, Report, SpecError
from blockforge.search.budget import cost_of
from blockforge.spec.fields import MAX_DIM
from blockforge.spec.plan import Plan
from blockforge.spec.relations.require import violations
from blockforge.spec.sources import STEM

_STEM = -1
_STEPS_IN_A_WIDTH = 8
_SCANNED = 1024
"""Widths that are looked at for the next one that a stage's blocks accept."""


class Widths:
    """The widths of `arch`, one for each group of stages, in order."""

    def __init__(self, arch: Architecture) -> None:
        self.arch, self.name = arch, arch.name
        self.groups = _groups(arch)
        self.start = tuple(_dim(arch.plan, group[0]) for group in self.groups)
        self.places = [list(dict.fromkeys(_places(arch, group))) for group in self.groups]
        self._accepted: dict[tuple[int, int], bool] = {}

    def paths(self, group: int) -> list[Path]:
        """Where the spec says a group's width."""
        members = (m for m in self.groups[group] if m != _STEM or _own_stem_dim(self.arch.plan) is not None)
        return [("stem", "dim") if member == _STEM else ("stages", member, "dim") for member in members]

    def overrides(self, dims: tuple[int, ...]) -> dict[str, Any]:
        """The values by path that make these the widths of the spec."""
        pairs = enumerate(dims)
        return {".".join(map(str, path)): dim for group, dim in pairs for path in self.paths(group)}

    def costs(self, dims: tuple[int, ...], names: Mapping[str, Any]) -> dict[str, int]:
        """MACs, params or memory with these widths. Raises: SpecError if such a network does not compile, or breaks a
        relation of its space."""
        plan, report = self._plan(dims), Report(self.arch.plan.locs)
        self._check_relations(dims)
        arch = compile_plan(plan, self.arch.source, report)
        return {name: cost_of(arch, name) for name in names}

    def scaled(
        self, factor: float, most: int, tied: bool = False, held: frozenset[int] = frozenset()
    ) -> tuple[int, ...]:
        """All widths times a factor, each the nearest that its blocks accept, in steps of its own; see `step`.

        Args:
            tied: a width that is a multiple of the one before stays the same multiple of it.
            held: groups that stay as they are.
        """
        dims: list[int] = []
        for i, dim in enumerate(self.start):
            if i in held:
                dims.append(dim)
                continue
            times, rest = divmod(dim, self.start[i - 1]) if tied and dims else (0, 1)
            follows = rest == 0 and self.accepts(i, times * dims[-1])
            step = self.step(i, dim * factor, most)
            dims.append(times * dims[-1] if follows else self.nearest(i, dim * factor, step))
        return tuple(dims)

    def step(self, group: int, near: float, most: int) -> int:
        """The step of a group's widths near one: a multiple of what heads, groups and patches ask for, and of as large
        a power of two, `most` at most, as leaves it an eighth of the width: rounding then distorts no narrow one."""
        unit = self._units[group]
        steps = (math.lcm(unit, power) for power in (8, 4, 2) if power <= most)
        return next((step for step in steps if step * _STEPS_IN_A_WIDTH <= near), unit)

    @functools.cached_property
    def _units(self) -> list[int]:
        """What the widths of each group are multiples of, as far as the next width above tells."""
        above = [next(self._next(group, dim, 1), dim) for group, dim in enumerate(self.start)]
        return [math.gcd(dim, other) for dim, other in zip(self.start, above, strict=True)]

    def nearest(self, group: int, wanted: float, step: int) -> int:
        """The width closest to `wanted` that a group's blocks accept."""
        middle = max(1, min(MAX_DIM // step, round(wanted / step)))
        for distance in range(_SCANNED):
            for k in sorted({middle - distance, middle + distance}, key=lambda k: abs(k * step - wanted)):
                if 1 <= k * step <= MAX_DIM and self.accepts(group, k * step):
                    return k * step
        return self.start[group]

    def ladder(self, group: int, dim: int, step: int, reach: int) -> list[int]:
        """A width with up to `reach` accepted ones below and above it."""
        below, above = self._next(group, dim, -step), self._next(group, dim, step)
        taken = [dim for _, dim in zip(range(reach), below, strict=False)]
        return [*reversed(taken), dim, *(d for _, d in zip(range(reach), above, strict=False))]

    def _next(self, group: int, dim: int, step: int) -> Iterator[int]:
        first = dim + step if dim % step == 0 else dim // abs(step) * abs(step) + (step if step > 0 else 0)
        for k in range(_SCANNED):
            if not 1 <= (other := first + k * step) <= MAX_DIM:
                return
            if self.accepts(group, other):
                yield other

    def accepts(self, group: int, dim: int) -> bool:
        """Whether each block of a group can stand at a width: heads, groups and patches decide."""
        if (group, dim) not in self._accepted:
            self._accepted[group, dim] = all(_stands(op, shape, dim) for op, shape in self.places[group])
        return self._accepted[group, dim]

    def _plan(self, dims: tuple[int, ...]) -> Plan:
        by_member = {m: dim for group, dim in zip(self.groups, dims, strict=True) for m in group}
        plan = self.arch.plan
        stages = tuple(dataclasses.replace(s, dim=by_member.get(s.index)) for s in plan.stages)
        return dataclasses.replace(plan, stem_dim=by_member.get(_STEM), stages=stages)

    def _check_relations(self, dims: tuple[int, ...]) -> None:
        """Relations of the space that speak of widths hold for the new ones too."""
        tree = self.arch.source.lifted
        if "require" not in tree:
            return
        by_member = {m: dim for group, dim in zip(self.groups, dims, strict=True) for m in group}
        stages = [
            {**s, "dim": by_member[i]} if isinstance(s, dict) and i in by_member else s
            for i, s in enumerate(tree["stages"])
        ]
        if broken := violations({**tree, "stages": stages}, self.arch.plan.answers):
            raise SpecError([Diagnostic("require", f"{v.text} does not hold: {v.values}") for v in broken])


def changed_widths(before: Architecture, after: Architecture) -> dict[str, Any]:
    """The widths by path that make `after` of `before`, where nothing but widths differs."""
    own = Widths(before)
    old, new = own.overrides(own.start), own.overrides(Widths(after).start)
    return {path: width for path, width in new.items() if old[path] != width}


def _own_stem_dim(plan: Plan) -> int | None:
    dim: int | None = getattr(plan.stem.spec, "dim", None) if plan.stem is not None else None
    return dim


def _groups(arch: Architecture) -> list[list[int]]:
    """Members with one width together; stages without a width of their own are in none."""
    plan, sites = arch.plan, [node.site for node in arch.nodes.values()]
    joins = {site.stage: site.block for site in sites if isinstance(site, JoinSite)}
    dims = {s.index: s.dim for s in plan.stages if s.dim is not None}
    if plan.stem_dim is not None:
        dims[_STEM] = plan.stem_dim
    group = {member: [member] for member in sorted(dims)}
    for stage in plan.stages:
        sources = [_member(source.of) for source in stage.reads.sources if source.op is None]
        follows = stage.downsample is None or (stage.index == 0 and _own_stem_dim(plan) is None)
        join = joins.get(stage.index)
        if join is not None and not _ties(join):
            continue
        for one, other in itertools.pairwise([*sources, *([stage.index] if follows else [])]):
            if one in group and other in group and dims[one] == dims[other] and group[one] is not group[other]:
                group[one] += group[other]
                group.update(dict.fromkeys(group[other], group[one]))
    return [sorted(members) for first, members in group.items() if first == min(members)]


def _member(source: int | str) -> int | None:
    return source if isinstance(source, int) else _STEM if source == STEM else None


def _ties(join: Join) -> bool:
    """Whether a join takes maps of one width alone."""
    try:
        join.check((Shape(7, 7, 64), Shape(7, 7, 64)), None)
        join.check((Shape(7, 7, 64), Shape(7, 7, 128)), None)
    except OpError as e:
        return e.code == "widths"
    return False


def _dim(plan: Plan, member: int) -> int:
    dim = plan.stem_dim if member == _STEM else plan.stages[member].dim
    assert dim is not None
    return dim


def _places(arch: Architecture, group: list[int]) -> Iterator[tuple[AnyOp, Shape]]:
    """The blocks that work at a group's width, and the maps they read."""
    for node in arch.nodes.values():
        site, shape = node.site, node.shapes.in_shape
        if not isinstance(site, BlockSite) or isinstance(site, SkipSite | JoinSite) or site.output is not None:
            continue
        if isinstance(site, EdgeSite) and not isinstance(site.block, Reducing):
            continue  # it works at the width of what it reads
        is_stem = isinstance(site, ReducingSite) and site.stage is None
        if (_STEM if is_stem else site.stage) not in group:
            continue
        if isinstance(site, BranchSite):
            yield site.written, shape
        elif not isinstance(site.block, Composite):
            yield site.block, shape
        if isinstance(site, NormedSite) and site.norm is not None:
            yield site.norm, shape


@functools.lru_cache(65_536)
def _stands(op: AnyOp, shape: Shape, dim: int) -> bool:
    own = shape._replace(dim=dim)
    try:
        match op:
            case Composite():
                op.out_shape(own, dim)
            case Reducing():
                op.check(shape, dim)
            case Aggregator():
                op.check(own, (dim,), dim)
            case MapOp():
                op.check(own)
    except OpError:
        return False
    return True

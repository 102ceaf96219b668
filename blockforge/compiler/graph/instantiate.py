"""Blocks and connection rules made from what a plan names. Everything wrong with them is found here."""

from __future__ import annotations

import keyword
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from blockforge.blocks import registry
from blockforge.blocks.base import AnyOp, Kind, Mixer
from blockforge.blocks.compose.frame import Bound, Definitions, Frame, plain_op
from blockforge.blocks.compose.from_glossary import definitions_of
from blockforge.blocks.compose.head import WrittenHead
from blockforge.blocks.compose.members import width
from blockforge.blocks.compose.norm import WrittenNorm, norm_of
from blockforge.blocks.compose.steps import module_name
from blockforge.blocks.compose.written import Map, freeze
from blockforge.blocks.compose.written_op import Written, is_composed, unknown_op, unwrapped
from blockforge.blocks.joins.aggregated import as_join
from blockforge.blocks.part import Join
from blockforge.compiler.graph.branches import as_residual, is_residual
from blockforge.compiler.graph.connect import RULES, Feeds, RuleError, fed_by, make_rule
from blockforge.errors import OpError, Path, Report
from blockforge.provenance import hint_in_comment
from blockforge.spec import late
from blockforge.spec.forms import unknown_key
from blockforge.spec.model import ConnectSpec
from blockforge.spec.plan import Branch, Head, Plan, PlannedOp, Reads, Stage
from blockforge.spec.reporting import NOWHERE, report_at
from blockforge.spec.schema_errors import report_schema_errors
from blockforge.spec.sources import EdgeOpSpec, JoinSpec
from blockforge.spec.values import Expr, all_values

_O = TypeVar("_O", bound=AnyOp)
_LEFT_OUT: dict[Kind, str] = {"mixer": "branch", "downsample": "skip"}
"""What is left out where there is to be no op. Where none may stand for a place of these kinds, it came to no block."""


class Maker:
    """Makes each block once for each place it is written: many layers share one."""

    def __init__(self, report: Report) -> None:
        self.report, self.definitions = report, Definitions()
        self.ops: dict[int, AnyOp] = {}  # by the PlannedOp's id
        self.widths: dict[int, int] = {}
        """What joins are asked for, which say it themselves."""

    def make(self, op: PlannedOp, kind: type[_O]) -> _O:
        """A block of a kind, which `check_all` found to be right."""
        made = self.ops[id(op)]
        assert isinstance(made, kind)
        return made

    def check_all(self, plan: Plan) -> None:
        """Make every block of the plan and report what is wrong with it."""
        self.definitions = definitions_of(plan.glossary)
        for branch in _branches(plan):
            if is_residual(branch):
                self.ops[id(branch.op)] = as_residual(branch, self.definitions)
        for head in plan.heads:
            self._check_name(head)
        for op, kinds in _planned(plan):
            if id(op) in self.ops:
                continue
            try:
                if (made := self._made(op, kinds)) is not None:
                    self.ops[id(op)] = made
            except registry.ParamsError as errors:
                self._params(op, errors)
            except OpError as e:
                place = (*op.at, e.param or "op")
                report_at(self.report, op.origins, e.code, str(e), place, hint=self._hint(e, place))
        readers: list[Stage | Head] = [*plan.stages, *plan.heads]
        for reader in readers:
            if reader.reads.written and len(reader.reads.sources) == 1:
                self._check_alone(reader)

    def _check_alone(self, reader: Stage | Head) -> None:
        """Report a join of a single map that would make something else of it: nothing is joined there."""
        op = reader.reads.join
        join = self.ops.get(id(op))
        if isinstance(join, Join) and (join.alone or id(op) in self.widths):
            text = f"{reader} reads a single map, and '{join.op}' joins several"
            hint = "say it as an op: {op: parallel, of: [identity], join: ...}"
            report_at(self.report, op.origins, "join", text, op.path, hint=hint)

    def _check_name(self, head: Head) -> None:
        """Report what cannot be the name of a head's module."""
        if keyword.iskeyword(head.name) or module_name(head.name) != head.name:
            hint = "Python has this word" if keyword.iskeyword(head.name) else "torch's modules use this name"
            text = f"no head can be called '{head.name}'"
            report_at(self.report, NOWHERE, "value", text, head.op.path, hint=hint, on_key=True)

    def _made(self, op: PlannedOp, kinds: tuple[Kind, ...]) -> AnyOp | None:
        """A block by its name, or whatever else is written in the place of one of these kinds; None: it was
        reported."""
        bound = unwrapped(Bound(freeze(op.spec.written(), op.path), Frame((), self.definitions), op.path))
        if kinds[0] == "norm":
            here = Frame(tuple(op.place.items()), self.definitions)
            return placed_names(norm_of(Bound(bound.value, here, bound.at)), op)
        if kinds[0] in _LEFT_OUT and isinstance(bound.value, Map) and bound.value.get("op") == "none":
            what = _LEFT_OUT[kinds[0]]
            hint = f"leave the {what} out; identity is an op that passes on what it reads"
            raise OpError(f"none is no op of a {what}", hint=hint, param="op", code="value")
        if is_composed(bound, kinds):
            return WrittenHead(of=bound) if "head" in kinds else Written(of=bound)
        if self._has_late_values(op):
            return None
        name, params = plain_op(Bound(bound.value, Frame(tuple(op.place.items()), self.definitions), bound.at))
        if name not in registry.BLOCKS and (unknown := unknown_op(name, kinds, self.definitions)) is not None:
            raise unknown
        if kinds[0] != "join":
            return registry.make(name, params, *kinds)
        if (dim := params.pop("dim", None)) is not None:
            self.widths[id(op)] = width(dim)
        return as_join(registry.make(name, params, *kinds))

    def _has_late_values(self, op: PlannedOp) -> bool:
        """Report the parameters that depend on the map, which a block written in Python takes no account of."""
        values = [(name, v) for name, value in op.spec.params.items() for v in all_values(value)]
        late_values = [(name, v) for name, v in values if isinstance(v, Expr) and not v.names() <= op.place.keys()]
        for name, expr in late_values:
            report_at(self.report, op.origins, "late", late.message(expr), (*op.at, name), hint=late.HINT)
        return bool(late_values)

    def _hint(self, error: OpError, path: Path) -> str | None:
        """An error's hint; of a block or a rule that is not known, what the file says of it comes first."""
        is_named = error.code.startswith("unknown-") and error.code != "unknown-key"
        return (hint_in_comment(str(error), self.report.locs, path) if is_named else None) or error.hint

    def feeds(self, stage: Stage) -> Feeds:
        """Receiving layer -> source layers, as the stage's rule says."""
        if stage.connect is None:
            return {}
        path: Path = (*stage.path, "connect")
        name = stage.connect.rule
        try:
            rule = make_rule(name, stage.connect.model_extra or {})
            feeds = fed_by(rule, len(stage.layers), stage.index == 0)
            self._check_fed(stage, [stage.layers[i] for i in feeds])
            return feeds
        except RuleError as errors:
            for where, e in errors.errors:
                report_at(self.report, stage.origins, e.code, str(e), (*path, *where), hint=e.hint)
        except OpError as e:
            report_at(self.report, stage.origins, e.code, str(e), (*path, "rule"), hint=self._hint(e, path))
        except ValidationError as e:
            report_schema_errors(e, RULES[name], self.report, path, stage.origins, ConnectSpec.model_fields)
        return {}

    def _params(self, op: PlannedOp, errors: registry.ParamsError) -> None:
        """The parameters of a block that are wrong, those of blocks inside it included."""
        for path, e in errors.each():
            unknown = e.code == "unknown-key"
            hint = self._hint(e, op.path)
            name = op.spec.op if isinstance(op.spec.op, str) else ""
            if unknown and len(path) == 1 and name in registry.BLOCKS:  # a branch has keys of its own beside the op's
                own = (field.alias or key for key, field in type(op.spec).model_fields.items())
                known = {*registry.get(name).model_fields, *own}
                hint = unknown_key(str(path[0]), known, "known here")
            place = (*op.at, *path, "op") if e.param == "op" else (*op.at, *path)
            report_at(self.report, op.origins, e.code, str(e), place, hint=hint, on_key=unknown)

    def _check_fed(self, stage: Stage, receivers: list[tuple[str, tuple[Branch, ...]]]) -> None:
        for name, branches in receivers:
            made = [self.ops.get(id(b.op)) for b in branches]
            if None not in made and not any(mixes(op, stage.dim) for op in made if op is not None):
                text = f"block '{name}' has no mixer for the aggregator to feed"
                hint = "a layer that receives connections needs a mixer among its branches"
                report_at(self.report, stage.origins, "connect", text, (*stage.path, "connect"), hint=hint)


def placed_names(op: _O, planned: PlannedOp, **names: Any) -> _O:
    """An op that may read names of its place, with what they stand for there."""
    if not isinstance(op, Written | WrittenNorm):
        return op
    with_names: Any = op.with_names({**planned.place, **names})
    made: _O = with_names
    return made


def mixes(op: AnyOp, dim: int | None) -> bool:
    """Whether an op mixes positions."""
    return op.mixes_at(dim) if isinstance(op, Written) else isinstance(op, Mixer)


def _branches(plan: Plan) -> Iterator[Branch]:
    return (branch for stage in plan.stages for _, branches in stage.layers for branch in branches)


def _planned(plan: Plan) -> Iterator[tuple[PlannedOp, tuple[Kind, ...]]]:
    """Every block that the plan names, with the kinds it may be of."""
    if plan.stem is not None:
        yield plan.stem, ("stem",)
    for stage in plan.stages:
        yield from _of_edges(stage.reads)
        if stage.downsample is not None:
            yield stage.downsample, ("downsample",)
        for branches in {id(branches): branches for _, branches in stage.layers}.values():
            for branch in branches:
                yield branch.op, ("mixer", "ffn")
                if branch.norm is not None:
                    yield branch.norm, ("norm",)
                if branch.post_act is not None:
                    yield branch.post_act, ("act",)
        if stage.aggregate is not None:
            yield stage.aggregate, ("aggregator",)
        if stage.norm is not None:
            yield stage.norm, ("norm",)
    for skip in plan.skips:
        yield skip.op, ("downsample",)
    for head in plan.heads:
        yield from _of_edges(head.reads)
        yield head.op, ("head",)


def _of_edges(reads: Reads) -> Iterator[tuple[PlannedOp, tuple[Kind, ...]]]:
    """What stands between what is read and what reads it."""
    yield from ((s.op, EdgeOpSpec.kinds) for s in reads.sources if s.op is not None)
    if reads.written or len(reads.sources) > 1:
        yield reads.join, JoinSpec.kinds

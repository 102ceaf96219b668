"""Spec -> Plan: references replaced, holes asked for, layer patterns written out. No block is known here.

Only what the network uses is looked at: a hole in a block that no layer names is never asked for, so the
search sees exactly the holes that matter for a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from blockforge.errors import Path, Report
from blockforge.spec import late
from blockforge.spec.calls import warn_of_names
from blockforge.spec.glossary import Glossary, filled, names_read
from blockforge.spec.layers import Known, write_out
from blockforge.spec.model import (
    Basics,
    BranchKeys,
    BranchSpec,
    DefaultsSpec,
    DropPathSpec,
    ScaleSpec,
    SkipSpec,
    Spec,
    StageSpec,
)
from blockforge.spec.patterns import Name
from blockforge.spec.plan import Branch, Head, Plan, PlannedOp, Reads, Skip, Source, Stage
from blockforge.spec.reading import StageNames, layers_before, unread
from blockforge.spec.relations.require import report_violations
from blockforge.spec.reporting import NOWHERE, Origins, report_at
from blockforge.spec.schema_errors import report_schema_errors
from blockforge.spec.scope import Ask, FailedError, Scope, Values
from blockforge.spec.skips import wrong_stages
from blockforge.spec.slots import OpSpec, StemSpec
from blockforge.spec.sources import INPUT, STEM, HeadSpec, JoinSpec, ReadsSpec, SourceSpec

_APART = ("downsample", "let", "from", "join", "stage_norm")
"""Keys of a stage that are read apart from the others."""
_M = TypeVar("_M", bound=BaseModel)
_T = TypeVar("_T")


def resolve(spec: Spec, ask: Ask | None = None, report: Report | None = None) -> Plan:
    """Write out everything that `spec` says.

    Args:
        spec: what `load` gives.
        ask: fills the holes; without it a spec with holes is an error.
        report: takes warnings; errors are raised.
    Raises: SpecError with every unknown name, malformed pattern and unfilled hole.
    """
    return _Resolver(spec, ask, report or Report(spec.locs)).plan()


class _Resolver:
    def __init__(self, spec: Spec, ask: Ask | None, report: Report) -> None:
        self.report, self.name = report, spec.name
        self.tree: dict[str, Any] = spec.lifted
        self.scope = Scope(self.tree.get("let", {}), ("let",))
        self.values = Values(report, ask)
        self.parts: list[BaseModel] = []
        self.glossary = Glossary.of(self.tree)
        self.names = StageNames(self.tree["stages"], report)

    def plan(self) -> Plan:
        tree = self.tree
        warn_of_names(tree, self.report)
        stem = self.attempt(self._stem)
        basics = self.attempt(self._basics)
        if basics is not None:
            self.scope = self.scope.with_place({"classes": basics.num_classes})
        stages = [self.attempt(self._stage, i) for i in range(len(tree["stages"]))]
        skips = self.attempt(self._skips)
        stage_norm = self.attempt(self.op, tree.get("stage_norm"), ("stage_norm",), self.scope)
        heads = self.attempt(self._heads)
        glossary = self.attempt(filled, self.glossary, self.parts, self.values.filled)
        self.report.close()
        if basics is None or heads is None or skips is None or glossary is None:
            raise AssertionError("a part that fails reports why")
        whole = [replace(s, norm=stage_norm) if s.takes_norm else s for s in stages if s is not None]
        features = self._features(basics)
        self._check_read(whole, heads, features)
        report_violations(self.tree, self.values.answers, self.report)
        self.report.close()
        assert isinstance(basics.drop_path, DropPathSpec)
        rates = _rates(basics.drop_path, layers_before(whole))
        return Plan(
            self.name, basics.input, basics.num_classes, rates, stem, _stem_dim(stem, whole), tuple(whole), skips,
            heads, self.report.locs, dict(self.values.answers), glossary, features,
        )  # fmt: skip

    def attempt(self, make: Callable[..., _T], *args: Any) -> _T | None:
        """What `make` gives, or None where it failed: the pass goes on to find the other errors."""
        try:
            return make(*args)
        except FailedError:
            return None

    def fail(self, code: str, message: str, path: Path, origins: Origins, hint: str | None = None) -> FailedError:
        """Report an error; to be raised."""
        report_at(self.report, origins, code, message, path, hint=hint)
        return FailedError()

    # --- parts

    def part(self, model: type[_M], tree: Any, path: Path, scope: Scope, origins: Origins) -> _M:
        """One part of the spec, resolved and validated."""
        resolved = self.values.deep(tree, path, scope, origins)
        return self._validated(model, resolved, path, origins)

    def _validated(self, model: type[_M], tree: Any, path: Path, origins: Origins, unread: Collection[str] = ()) -> _M:
        """`unread`: fields that are not resolved yet."""
        try:
            part = model.model_validate(tree)
        except ValidationError as e:
            report_schema_errors(e, model, self.report, path, origins)
            raise FailedError from None
        wrong = [(at, expr) for at, expr in late.late_values(part) if at[0] not in unread]
        for at, expr in wrong:
            report_at(self.report, origins, "late", late.message(expr), (*path, *at), hint=late.HINT)
        if wrong:
            raise FailedError
        self.parts.append(part)
        self.values.used |= names_read(self.glossary, part)
        return part

    def op(self, tree: Any, path: Path, scope: Scope, model: type[OpSpec] = OpSpec) -> PlannedOp | None:
        """A block, or None for `none`."""
        origins = Origins()
        tree = self.values.shallow(tree, path, scope, origins)
        if tree is None or tree == "none":
            return None
        return PlannedOp(self.part(model, tree, path, scope, origins), path, origins, scope.place)

    def _heads(self) -> tuple[Head, ...]:
        """The head, or those of `heads` that are not left out."""
        written: dict[str, tuple[Any, Path]] = {"head": (self.tree.get("head"), ("head",))}
        if "head" not in self.tree:
            written = {name: (tree, ("heads", name)) for name, tree in self.tree["heads"].items()}
        tried = [self.attempt(self._head, name, *place) for name, place in written.items()]
        if None in tried:
            raise FailedError
        heads = tuple(head for made in tried for head in made or ())
        if not heads:
            what = "the head cannot be none" if "head" in self.tree else "every head is none"
            path = ("head",) if "head" in self.tree else ("heads",)
            raise self.fail("value", what, path, Origins(), "every backbone has one")
        return heads

    def _head(self, name: str, written: Any, path: Path) -> tuple[Head, ...]:
        """A head; of `none` none."""
        origins, last = Origins(), len(self.tree["stages"])
        tree = self.values.shallow(written, path, self.scope, origins)
        if (op := self.op(written, path, self.scope, HeadSpec)) is None:
            return ()
        given = tree if isinstance(tree, dict) else {}
        return (Head(name, op, self._reads(last, path, given, self.scope, origins, None)),)

    def _stem(self) -> PlannedOp | None:
        stem = self.op(self.tree["stem"], ("stem",), self.scope, StemSpec)
        self.names.others = (INPUT,) if stem is None else (INPUT, STEM)
        return stem

    def _basics(self) -> Basics:
        tree = {k: self.tree[k] for k in Basics.model_fields if k in self.tree}
        return self.part(Basics, tree, (), self.scope, Origins())

    def _features(self, basics: Basics) -> tuple[int, ...] | None:
        """The stages that `features` names. Raises: SpecError for those that there are not."""
        if basics.features is None:
            return None
        stages, before = [], -1
        for i, given in enumerate(basics.features):
            stage = self.attempt(self.names.stage, given, ("features", i))
            if stage is not None and stage <= before:
                text, hint = f"'{given}' is no stage behind stage {before}", "stages in their order, each once"
                self.fail("features", text, ("features", i), NOWHERE, hint)
            before = before if stage is None else stage
            stages.append(before)
        self.report.close()
        return tuple(stages)

    def _check_read(self, stages: Sequence[Stage], heads: Sequence[Head], features: Sequence[int] | None) -> None:
        """Report stages that would run for nothing: neither a stage nor a head reads them, and `features` names them
        not."""
        of_heads = [s.of for head in heads for s in head.reads.sources if isinstance(s.of, int)]
        for stage in unread(stages, {*of_heads, *(features or ())}):
            hint = "name it in `from` of a later stage or in features, or leave it out"
            report_at(self.report, stage.origins, "unread", f"nobody reads {stage}", stage.path, hint=hint)

    # --- stages

    def _stage(self, index: int) -> Stage:
        path: Path = ("stages", index)
        origins = Origins()
        place = {**self.scope.place, "stage": index}
        tree = self.values.shallow(self.tree["stages"][index], path, self.scope.with_place(place), origins)
        own = tree.get("let", {}) if isinstance(tree, dict) else {}
        scope = Scope(own if isinstance(own, dict) else {}, (*path, "let"), self.scope).with_place(place)
        self.names.add(index, tree)
        if isinstance(tree, dict):  # these have paths or scopes of their own
            apart = {k: tree[k] for k in _APART if k in tree}
            rest = {k: v for k, v in tree.items() if k not in apart}
            readers = {k: self._pattern if k == "layers" else self.values.deep for k in rest}
            tree = {**apart, **{k: readers[k](v, (*path, k), scope, origins) for k, v in rest.items()}}
        listed = isinstance(tree, dict) and isinstance(tree.get("layers"), list)
        unread = (*_APART, *(["layers"] if listed else ()))
        stage = self._validated(StageSpec, tree, path, origins, unread)
        known = Known(self.tree.get("blocks", {}), self.glossary)
        names = write_out(stage, path, known, origins, self.report)
        scope = scope.with_place({"depth": len(names)})
        layers = self._layers(stage.layers, (*path, "layers"), names, scope, origins)
        reads = self._reads(index, path, tree, scope, origins, stage.dim)
        downsample = self._downsample(index, tree, scope)
        norm = None
        if "stage_norm" in tree:
            norm = self.op(tree["stage_norm"], (*path, "stage_norm"), scope)
        if layers is None:
            raise FailedError
        aggregate = None
        if stage.connect is not None:
            aggregate = PlannedOp(stage.connect.aggregate, (*path, "connect", "aggregate"), origins)
        return Stage(
            index, stage.name, stage.dim, reads, layers, downsample, stage.window, stage.connect, aggregate, norm,
            origins, takes_norm=not tree.keys() & {"from", "stage_norm"},
        )  # fmt: skip

    def _pattern(self, value: Any, path: Path, scope: Scope, origins: Origins) -> Any:
        """What `layers` says; ops in a list are read in their layers."""
        pattern = self.values.shallow(value, path, scope, origins)
        if not isinstance(pattern, list):
            return pattern
        return [self.values.shallow(item, (*path, i), scope, origins) for i, item in enumerate(pattern)]

    def _layers(
        self, written: Any, path: Path, names: Sequence[Name], scope: Scope, origins: Origins
    ) -> tuple[tuple[str, tuple[Branch, ...]], ...] | None:
        """The branches of each layer; layers share those of a block that does not ask which layer it is in."""
        shared: dict[Name, tuple[Branch, ...] | None] = {}
        layers = []
        for i, name in enumerate(names):
            branches = shared.get(name)
            if name not in shared:
                self.values.used.discard("layer")
                place = scope.with_place({"layer": i})
                if isinstance(name, str) and name in self.tree.get("blocks", {}):
                    branches = self.attempt(self._block, name, place)
                else:
                    tree, at = (name, path) if isinstance(name, str) else (written[name], (*path, name))
                    branches = self.attempt(self._op_alone, tree, at, place, origins)
                if branches is None or "layer" not in self.values.used:
                    shared[name] = branches
            layers.append((name if isinstance(name, str) else _title(written[name]), branches or ()))
        return None if None in shared.values() else tuple(layers)

    def _downsample(self, index: int, tree: Any, scope: Scope) -> PlannedOp | None:
        if "downsample" in tree:
            return self.op(tree["downsample"], ("stages", index, "downsample"), scope)
        return self.op(self.tree.get("downsample"), ("downsample",), scope) if index and "from" not in tree else None

    def _reads(self, index: int, path: Path, tree: Any, scope: Scope, outer: Origins, dim: int | None) -> Reads:
        """What a stage of this number reads, or a head behind the last one. Raises: FailedError, once all that is wrong
        with it is told."""
        origins, known = Origins(outer), {"out": dim} if dim is not None else {}
        join = None
        if "join" in tree:
            join = self.op(tree["join"], (*path, "join"), scope.with_place(known), JoinSpec)
        join = join or PlannedOp(JoinSpec(op="sum"), (*path, "from"), origins)
        if "from" not in tree:
            if not index and STEM not in self.names.others:
                hint = "stages that read the image say so: from: input"
                raise self.fail("value", "the stem cannot be none where stage 0 reads it", ("stem",), NOWHERE, hint)
            before = index - 1 if index else STEM
            return Reads((Source(before, None, path),), join, written=False)
        given = self.values.deep(tree["from"], (*path, "from"), scope, origins)
        read = self._validated(ReadsSpec, {"from": given}, path, origins).from_
        many = isinstance(given, list)
        places = [(*path, "from", *([i] if many else ())) for i in range(len(read))]
        sources = [self.attempt(self._source, index, s, at, scope, origins) for s, at in zip(read, places, strict=True)]
        if None in sources:
            raise FailedError
        return Reads(tuple(s for s in sources if s is not None), join)

    def _source(self, index: int, spec: SourceSpec, path: Path, scope: Scope, origins: Origins) -> Source:
        of = self.names.source(spec.from_, index, path, origins)
        op = PlannedOp(spec.op, (*path, "op"), origins, scope.place) if spec.op is not None else None
        return Source(of, op, path)

    # --- blocks

    def _block(self, name: str, scope: Scope) -> tuple[Branch, ...]:
        path: Path = ("blocks", name)
        origins = Origins()
        tree = self.values.shallow(self.tree["blocks"][name], path, scope, origins)
        if not isinstance(tree, list) or not tree:
            hint = "a block is a list of branches: [{op: sam}, {op: mlp}]"
            raise self.fail("value", f"block '{name}' has no branches", path, origins, hint)
        return tuple(self._branch(b, (*path, i), scope, origins) for i, b in enumerate(tree))

    def _op_alone(self, tree: Any, path: Path, scope: Scope, outer: Origins) -> tuple[Branch, ...]:
        """A layer that is an op: nothing stands around it."""
        origins = Origins(outer)
        spec = self.part(OpSpec, tree, path, scope, origins)
        return (Branch(PlannedOp(spec, path, origins, scope.place), None, BranchKeys(skip=False), None),)

    def _branch(self, tree: Any, path: Path, scope: Scope, outer: Origins) -> Branch:
        origins = Origins(outer)
        spec = self.part(BranchSpec, tree, path, scope, origins)
        if "norm" in spec.model_fields_set:
            norm = PlannedOp(spec.norm, (*path, "norm"), origins) if spec.norm else None
        else:
            norm = self._default_norm(scope)
        keys = spec.keys
        if "scale" not in spec.model_fields_set:
            keys = keys.with_default(self._default_scale(scope))
        post_act = PlannedOp(keys.post_act, (*path, "post_act"), origins) if keys.post_act is not None else None
        return Branch(PlannedOp(spec, path, origins, scope.place), norm, keys, post_act)

    def _default_norm(self, scope: Scope) -> PlannedOp | None:
        return self.op(self._defaults(scope).get("norm"), ("defaults", "norm"), scope)

    def _default_scale(self, scope: Scope) -> ScaleSpec | None:
        given = {k: v for k, v in self._defaults(scope).items() if k == "scale"}
        if not given:
            return None
        return self.part(DefaultsSpec, given, ("defaults",), scope, Origins()).scale

    def _defaults(self, scope: Scope) -> dict[str, Any]:
        defaults = self.values.shallow(self.tree.get("defaults", {}), ("defaults",), scope, Origins())
        if not isinstance(defaults, dict):
            raise self.fail("value", "defaults is a mapping", ("defaults",), Origins(), "{norm: layer_norm}")
        return defaults

    # --- long edges

    def _skips(self) -> tuple[Skip, ...]:
        origins = Origins()
        trees = self.values.shallow(self.tree.get("skips", []), ("skips",), self.scope, origins)
        if not isinstance(trees, list):
            raise self.fail("value", "skips is a list", ("skips",), origins, "[{from: 1, to: [2], op: ...}]")
        skips = [self.attempt(self._skip, tree, ("skips", i), origins) for i, tree in enumerate(trees)]
        return tuple(s for s in skips if s is not None)

    def _skip(self, tree: Any, path: Path, outer: Origins) -> Skip:
        origins = Origins(outer)
        spec = self.part(SkipSpec, tree, path, self.scope, origins)
        for at, message, hint in wrong_stages(spec, len(self.tree["stages"])):
            report_at(self.report, origins, "skip", message, (*path, *at), hint=hint)
        return Skip(spec.from_, tuple(sorted(spec.to)), PlannedOp(spec.op, (*path, "op"), origins), path)


def _title(op: Any) -> str:
    """What a layer is called that is an op: the op's name, if it has one."""
    while isinstance(op, dict):
        op = op["op"]
    return op if isinstance(op, str) else "chain" if isinstance(op, list) else "op"


def _rates(drop_path: DropPathSpec, before: Sequence[int]) -> tuple[float, ...]:
    """The drop path rate of every layer, as timm's linspace gives them. `before`: how many layers stand before each."""
    if drop_path.constant is not None:
        return (drop_path.constant,) * len(before)
    last = max(before, default=0)
    return tuple(drop_path.linear * i / last if last else 0.0 for i in before)


def _stem_dim(stem: PlannedOp | None, stages: Sequence[Stage]) -> int | None:
    """The width that the stem is asked for: its own, or that of the first stage that reads it as it is and is no empty
    one, which passes it on."""
    if stem is None:
        return None
    assert isinstance(stem.spec, StemSpec)
    passed_on: set[int | str] = {STEM}
    for stage in stages if stem.spec.dim is None else ():
        if any(source.of in passed_on and source.op is None for source in stage.reads.sources):
            if stage.dim or stage.layers:
                return stage.dim
            passed_on.add(stage.index)
    return stem.spec.dim

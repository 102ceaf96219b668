"""Spec -> Plan: references replaced, holes asked for, layer patterns written out. No block is known here.

Only what the network uses is looked at: a hole in a block that no layer names is never asked for, so the
search sees exactly the holes that matter for a candidate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
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
from blockforge.spec.plan import Branch, Plan, PlannedOp, Skip, Stage
from blockforge.spec.relations.require import report_violations
from blockforge.spec.reporting import NOWHERE, Origins, report_at
from blockforge.spec.schema_errors import report_schema_errors
from blockforge.spec.scope import Ask, FailedError, Scope, Values
from blockforge.spec.skips import wrong_stages
from blockforge.spec.slots import OpSpec, StemSpec

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

    def plan(self) -> Plan:
        tree = self.tree
        warn_of_names(tree, self.report)
        stem = self.attempt(self.required_op, "stem", StemSpec)
        basics = self.attempt(self._basics)
        if basics is not None:
            self.scope = self.scope.with_place({"classes": basics.num_classes})
        stages = [self.attempt(self._stage, i) for i in range(len(tree["stages"]))]
        skips = self.attempt(self._skips)
        stage_norm = self.attempt(self.op, tree.get("stage_norm"), ("stage_norm",), self.scope)
        head = self.attempt(self.required_op, "head")
        glossary = self.attempt(filled, self.glossary, self.parts, self.values.filled)
        self.report.close()
        if basics is None or stem is None or head is None or skips is None or glossary is None:
            raise AssertionError("a part that fails reports why")
        whole = [s for s in stages if s is not None]
        assert isinstance(stem.spec, StemSpec)
        stem_dim = stem.spec.dim or next((s.dim for s in whole if s.dim or s.layers), None)
        report_violations(self.tree, self.values.answers, self.report)
        self.report.close()
        assert isinstance(basics.drop_path, DropPathSpec)
        rates = _rates(basics.drop_path, sum(len(s.layers) for s in whole))
        return Plan(
            self.name, basics.input, basics.num_classes, rates, stem, stem_dim, tuple(whole), skips,
            stage_norm, head, self.report.locs, dict(self.values.answers), glossary, self._features(basics),
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
        found = self.values.deep(tree, path, scope, origins)
        return self._validated(model, found, path, origins)

    def _validated(self, model: type[_M], tree: Any, path: Path, origins: Origins, unread: Collection[str] = ()) -> _M:
        """`unread`: fields that are not resolved yet."""
        try:
            found = model.model_validate(tree)
        except ValidationError as e:
            report_schema_errors(e, model, self.report, path, origins)
            raise FailedError from None
        wrong = [(at, expr) for at, expr in late.late_values(found) if at[0] not in unread]
        for at, expr in wrong:
            report_at(self.report, origins, "late", late.message(expr), (*path, *at), hint=late.HINT)
        if wrong:
            raise FailedError
        self.parts.append(found)
        self.values.used |= names_read(self.glossary, found)
        return found

    def op(self, tree: Any, path: Path, scope: Scope, model: type[OpSpec] = OpSpec) -> PlannedOp | None:
        """A block, or None for `none`."""
        origins = Origins()
        tree = self.values.shallow(tree, path, scope, origins)
        if tree is None or tree == "none":
            return None
        return PlannedOp(self.part(model, tree, path, scope, origins), path, origins, scope.place)

    def required_op(self, key: str, model: type[OpSpec] = OpSpec) -> PlannedOp:
        """The stem or the head."""
        found = self.op(self.tree[key], (key,), self.scope, model)
        if found is None:
            raise self.fail("value", f"the {key} cannot be none", (key,), Origins(), "every backbone has one")
        return found

    def _basics(self) -> Basics:
        tree = {k: self.tree[k] for k in Basics.model_fields if k in self.tree}
        return self.part(Basics, tree, (), self.scope, Origins())

    def _features(self, basics: Basics) -> tuple[int, ...] | None:
        """The stages that `features` names. Raises: SpecError for those that there are not."""
        last = len(self.tree["stages"]) - 1
        for i, (before, stage) in enumerate(itertools.pairwise((-1, *(basics.features or ())))):
            if not before < stage <= last:
                hint = f"stages from 0 to {last}, in order"
                self.fail("features", f"{stage} is no stage behind {before}", ("features", i), NOWHERE, hint)
        self.report.close()
        return tuple(basics.features) if basics.features is not None else None

    # --- stages

    def _stage(self, index: int) -> Stage:
        path: Path = ("stages", index)
        origins = Origins()
        place = {**self.scope.place, "stage": index}
        tree = self.values.shallow(self.tree["stages"][index], path, self.scope.with_place(place), origins)
        own = tree.get("let", {}) if isinstance(tree, dict) else {}
        scope = Scope(own if isinstance(own, dict) else {}, (*path, "let"), self.scope).with_place(place)
        if isinstance(tree, dict):  # `downsample` and `let` have paths or scopes of their own
            apart = {k: tree[k] for k in ("downsample", "let") if k in tree}
            rest = {k: v for k, v in tree.items() if k not in apart}
            readers = {k: self._pattern if k == "layers" else self.values.deep for k in rest}
            tree = {**apart, **{k: readers[k](v, (*path, k), scope, origins) for k, v in rest.items()}}
        listed = isinstance(tree, dict) and isinstance(tree.get("layers"), list)
        unread = ("downsample", "let", *(["layers"] if listed else ()))
        stage = self._validated(StageSpec, tree, path, origins, unread)
        known = Known(self.tree.get("blocks", {}), self.glossary)
        names = write_out(stage, path, known, origins, self.report)
        scope = scope.with_place({"depth": len(names)})
        layers = self._layers(stage.layers, (*path, "layers"), names, scope, origins)
        downsample = self._downsample(index, tree, scope)
        if layers is None:
            raise FailedError
        aggregate = None
        if stage.connect is not None:
            aggregate = PlannedOp(stage.connect.aggregate, (*path, "connect", "aggregate"), origins)
        return Stage(index, stage.dim, layers, downsample, stage.window, stage.connect, aggregate, origins)

    def _pattern(self, value: Any, path: Path, scope: Scope, origins: Origins) -> Any:
        """What `layers` says; ops in a list are read in their layers."""
        found = self.values.shallow(value, path, scope, origins)
        if not isinstance(found, list):
            return found
        return [self.values.shallow(item, (*path, i), scope, origins) for i, item in enumerate(found)]

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
        return self.op(self.tree.get("downsample"), ("downsample",), scope) if index else None

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
        found = self.values.shallow(self.tree.get("defaults", {}), ("defaults",), scope, Origins())
        if not isinstance(found, dict):
            raise self.fail("value", "defaults is a mapping", ("defaults",), Origins(), "{norm: layer_norm}")
        return found

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


def _rates(drop_path: DropPathSpec, layers: int) -> tuple[float, ...]:
    """The drop path rate of every layer, as timm's linspace gives them."""
    if drop_path.constant is not None:
        return (drop_path.constant,) * layers
    return tuple(drop_path.linear * i / (layers - 1) if layers > 1 else 0.0 for i in range(layers))

"""Spec -> Plan: references replaced, holes asked for, layer patterns written out. No torch, no block is known.

Only what the network uses is looked at: a hole in a block that no layer names is never asked for, so the
search sees exactly the holes that matter for a candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from blockforge.errors import Loc, Path, Report, did_you_mean
from blockforge.spec import patterns
from blockforge.spec.model import (
    BranchSpec,
    ConnectSpec,
    DefaultsSpec,
    DropPathSpec,
    InputSpec,
    OpSpec,
    ScaleSpec,
    SkipSpec,
    Spec,
    StageSpec,
)
from blockforge.spec.plan import Branch, Plan, PlannedOp, Skip, Stage
from blockforge.spec.schema_errors import report_schema_errors
from blockforge.spec.values import Hole, Ref, lift, walk

Ask = Callable[[Hole], Any]
"""Gives a value for a hole: a label of a choice, or a number in its range."""

MAX_LAYERS = 4096
_M = TypeVar("_M", bound=BaseModel)
_Origins = dict[Path, Path]


class _Failed(Exception):
    """A part that could not be resolved; its errors are in the report."""


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
        self.report = report
        self.tree: dict[str, Any] = lift(spec.tree, Report(spec.locs))
        self.ask = ask
        self.answers: dict[str, Any] = {}
        self.name = spec.name

    # --- values

    def value(self, value: Any, path: Path, scope: _Scope, origins: _Origins, trail: tuple[Any, ...] = ()) -> Any:
        """`value` with references and holes replaced. `origins` collects where referenced values came from."""
        if isinstance(value, Ref):
            return self._reference(value, path, scope, origins, trail)
        if isinstance(value, Hole):
            return self.value(self._fill(value, path), path, scope, origins, trail)
        if isinstance(value, dict):
            return {k: self.value(v, (*path, k), scope, origins, trail) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(v, (*path, i), scope, origins, trail) for i, v in enumerate(value)]
        return value

    def _reference(self, ref: Ref, path: Path, scope: _Scope, origins: _Origins, trail: tuple[Any, ...]) -> Any:
        found = scope.find(ref.name)
        if found is None:
            hint = did_you_mean(ref.name, scope.names(), what="names in let")
            self.report.error("unknown-name", f"there is no ${ref.name}", path, hint=hint)
            raise _Failed
        given, at = found
        if at in trail:
            self.report.error("let-cycle", f"${ref.name} refers to itself", at)
            raise _Failed
        origins[path] = at
        return self.value(given, at, scope, {}, (*trail, at))

    def _fill(self, hole: Hole, path: Path) -> Any:
        if self.ask is None:
            self.report.error("hole", f"'{hole.name}' is a hole", path, hint=_hole_hint(hole))
            raise _Failed
        if hole.name not in self.answers:
            answer = self.ask(hole)
            if answer not in hole:
                self.report.error("hole", f"{answer!r} is not one of the values of '{hole.name}'", hole.path)
                raise _Failed
            self.answers[hole.name] = answer
        answer = self.answers[hole.name]
        return hole.option(answer) if hole.kind == "choice" else answer

    # --- parts

    def part(self, model: type[_M], tree: Any, path: Path, scope: _Scope) -> tuple[_M, _Origins]:
        """One part of the spec, resolved and validated."""
        origins: _Origins = {}
        plain = self.value(tree, path, scope, origins)
        try:
            return model.model_validate(plain), origins
        except ValidationError as e:
            report_schema_errors(e, model, self.report, path)
            raise _Failed from None

    def op(self, tree: Any, path: Path, scope: _Scope) -> PlannedOp | None:
        """A block, or None for `none`."""
        if isinstance(tree, Ref | Hole):
            tree = self.value(tree, path, scope, {})
        if tree is None or tree == "none":
            return None
        spec, origins = self.part(OpSpec, tree, path, scope)
        return PlannedOp(spec, path, tuple(origins.items()))

    def attempt(self, make: Callable[[], Any]) -> Any:
        """What `make` gives, or None where it failed: the pass goes on to find the other errors."""
        try:
            return make()
        except _Failed:
            return None

    def plan(self) -> Plan:
        tree, scope = self.tree, _Scope(self.tree.get("let", {}), ("let",))
        top = {key: self.attempt(lambda k=key: self.op(tree.get(k), (k,), scope)) for key in ("stem", "head")}
        stage_norm = self.attempt(lambda: self.op(tree.get("stage_norm"), ("stage_norm",), scope))
        basics = self.attempt(lambda: self._basics(scope))
        stages = [self.attempt(lambda i=i, s=s: self._stage(i, s, scope)) for i, s in enumerate(tree["stages"])]
        skips = self.attempt(lambda: self._skips(scope, len(stages)))
        self._check_unused_names(scope)
        for key in ("stem", "head"):
            if top[key] is None and tree.get(key) == "none":
                self.report.error("value", f"{key} cannot be none", (key,))
        self.report.close()
        input_, classes, drop_path = basics
        rates = _rates(drop_path, [len(s.layers) for s in stages])
        return Plan(
            self.name, input_, classes, rates, top["stem"], tuple(stages), skips, stage_norm, top["head"], self.report.locs
        )  # fmt: skip

    def _basics(self, scope: _Scope) -> tuple[InputSpec, int, DropPathSpec]:
        tree = self.tree
        input_, _ = self.part(InputSpec, tree.get("input", {}), ("input",), scope)
        drop_path, _ = self.part(DropPathSpec, tree.get("drop_path", 0.0), ("drop_path",), scope)
        classes = self.value(tree.get("num_classes", 1000), ("num_classes",), scope, {})
        return input_, classes, drop_path

    def _stage(self, index: int, tree: Any, spec_scope: _Scope) -> Stage:
        path: Path = ("stages", index)
        scope = _Scope(tree.get("let", {}), (*path, "let"), spec_scope)
        own = {k: v for k, v in tree.items() if k in ("dim", "depth", "layers", "window", "connect")}
        stage, origins = self.part(StageSpec, own, path, scope)
        downsample = None
        if index or "downsample" in tree:
            at: Path = (*path, "downsample") if "downsample" in tree else ("downsample",)
            downsample = self.op(tree.get("downsample", self.tree.get("downsample")), at, scope)
        names = self._layers(stage, (*path, "layers"), origins)
        blocks = {name: self.attempt(lambda n=name: self._block(n, scope)) for name in dict.fromkeys(names)}
        if None in blocks.values():
            raise _Failed
        aggregate = None
        if stage.connect is not None:
            at = (*path, "connect", "aggregate")
            aggregate = PlannedOp(stage.connect.aggregate, at, tuple(origins.items()))
        layers = tuple((name, blocks[name]) for name in names)
        return Stage(index, stage.dim, layers, downsample, stage.window, stage.connect, aggregate)

    def _layers(self, stage: StageSpec, path: Path, origins: _Origins) -> tuple[str, ...]:
        """The block of each layer. Errors point into the pattern."""
        path = origins.get(path, path)
        known = self.tree.get("blocks", {})
        try:
            unknown = [(n, c) for n, c in patterns.names(stage.layers) if n not in known]
            for name, column in unknown:
                loc = _inside(self.report.locs.value(path), stage.layers, column, len(name))
                hint = did_you_mean(name, known, what="blocks")
                self.report.error("unknown-block", f"there is no block named '{name}'", path, hint=hint, loc=loc)
            if unknown:
                raise _Failed
            return patterns.expand(stage.layers, stage.depth)
        except patterns.PatternError as e:
            loc = _inside(self.report.locs.value(path), stage.layers, e.column, e.length)
            self.report.error("layers", str(e), path, hint=e.hint, loc=loc)
            raise _Failed from None

    def _block(self, name: str, scope: _Scope) -> tuple[Branch, ...]:
        path: Path = ("blocks", name)
        tree = self.tree["blocks"][name]
        if isinstance(tree, Ref | Hole):
            tree = self.value(tree, path, scope, {})
        if not isinstance(tree, list) or not tree:
            self.report.error("value", f"block '{name}' has no branches", path, hint="a block is a list of branches")
            raise _Failed
        return tuple(self._branch(b, (*path, i), scope) for i, b in enumerate(tree))

    def _branch(self, tree: Any, path: Path, scope: _Scope) -> Branch:
        spec, origins = self.part(BranchSpec, tree, path, scope)
        given = tuple(origins.items())
        if "norm" in spec.model_fields_set:
            norm = PlannedOp(spec.norm, (*path, "norm"), given) if spec.norm else None
        else:
            norm = self.op(self.tree.get("defaults", {}).get("norm"), ("defaults", "norm"), scope)
        scale: ScaleSpec | None = spec.scale
        if "scale" not in spec.model_fields_set and "scale" in self.tree.get("defaults", {}):
            scale = self.part(DefaultsSpec, {"scale": self.tree["defaults"]["scale"]}, ("defaults",), scope)[0].scale
        return Branch.of(spec, path, norm, scale, given)

    def _skips(self, scope: _Scope, num_stages: int) -> tuple[Skip, ...]:
        skips = []
        for i, tree in enumerate(self.tree.get("skips", [])):
            path: Path = ("skips", i)
            spec, origins = self.part(SkipSpec, tree, path, scope)
            op = PlannedOp(spec.op, (*path, "op"), tuple(origins.items()))
            last = f"stages count from 0 to {num_stages - 1}"
            if not 0 <= spec.from_ < num_stages:
                self.report.error("skip", f"there is no stage {spec.from_}", (*path, "from"), hint=last)
            for j, target in enumerate(spec.to):
                if not 0 <= target < num_stages:
                    self.report.error("skip", f"there is no stage {target}", (*path, "to", j), hint=last)
                elif target <= spec.from_:
                    text = f"a skip leads forward: stage {target} does not come after stage {spec.from_}"
                    self.report.error("skip", text, (*path, "to", j))
            if len(set(spec.to)) != len(spec.to):
                self.report.error("skip", "a stage is listed twice", (*path, "to"))
            skips.append(Skip(spec.from_, tuple(sorted(spec.to)), op, path))
        return tuple(skips)

    def _check_unused_names(self, spec_scope: _Scope) -> None:
        """Unknown names in blocks that no layer uses are mistakes too, though nothing asked for them."""
        names = set(spec_scope.names())
        for stage in self.tree["stages"]:
            names |= set(stage.get("let", {}))
        seen = {d.path for d in self.report.found if d.code == "unknown-name"}
        for name, block in self.tree.get("blocks", {}).items():
            for ref in _refs(block):
                path = ("blocks", name)
                if ref not in names and not any(p[:2] == path for p in seen):
                    hint = did_you_mean(ref, names, what="names in let")
                    self.report.error("unknown-name", f"block '{name}' uses ${ref}, which no let gives", path, hint=hint)


class _Scope:
    """Names that `let` gives: a stage's own before the spec's."""

    def __init__(self, own: Mapping[str, Any], path: Path, outer: _Scope | None = None) -> None:
        self.own, self.path, self.outer = own, path, outer

    def find(self, name: str) -> tuple[Any, Path] | None:
        if name in self.own:
            return self.own[name], (*self.path, name)
        return self.outer.find(name) if self.outer else None

    def names(self) -> list[str]:
        return [*self.own, *(self.outer.names() if self.outer else [])]


def _rates(drop_path: DropPathSpec, depths: list[int]) -> tuple[float, ...]:
    """The drop path rate of every layer, as timm's linspace gives them."""
    total = sum(depths)
    if drop_path.constant is not None:
        return (drop_path.constant,) * total
    return tuple(drop_path.linear * i / (total - 1) if total > 1 else 0.0 for i in range(total))


def _refs(tree: Any) -> list[str]:
    found: list[str] = []
    walk(tree, lambda v: found.append(v.name) if isinstance(v, Ref) else None)
    return found


def _inside(loc: Loc | None, text: str, column: int, length: int) -> Loc | None:
    """The place `column` characters into a string value, if the value stands on one line as it is."""
    if loc is None or not 1 <= loc.line <= len(loc.source.lines):
        return loc
    start = loc.source.lines[loc.line - 1].find(text, loc.column - 1)
    if start not in (loc.column - 1, loc.column):  # as it is, or behind a quote
        return loc
    return Loc(loc.source, loc.line, start + 1 + column, max(1, length))


def _hole_hint(hole: Hole) -> str:
    values = ", ".join(map(str, hole.labels[:8])) if hole.kind == "choice" else f"{hole.low} to {hole.high}"
    return f"fill it: --set {hole.name}=VALUE (values: {values}); or search the space: blockforge search"

"""A spec written out: nothing in it stands for something that is written elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count, groupby
from typing import Any

from blockforge.errors import Locs, Report
from blockforge.spec.emit import dump_yaml
from blockforge.spec.expressions.text import text_of
from blockforge.spec.expressions.tree import Node
from blockforge.spec.glossary import Glossary, flat
from blockforge.spec.holes import without_unused_definitions
from blockforge.spec.load import SpecLike, load, parse
from blockforge.spec.model import BranchKeys, ScaleSpec, Spec
from blockforge.spec.override import Overrides
from blockforge.spec.patterns import MAX_PATTERN
from blockforge.spec.plan import Branch, Plan, Stage
from blockforge.spec.reporting import Origins
from blockforge.spec.resolve import resolve
from blockforge.spec.scope import Scope, Values
from blockforge.spec.slots import OpSpec
from blockforge.spec.values import Expr, plain
from blockforge.spec.yaml.loader import Document

_GONE = ("let", "require", "defaults")
_OF_BRANCH = ("norm", *BranchKeys.model_fields)
"""Keys that beside an op are the branch's; one that has such a parameter itself stands in a list."""
_APART = ("about", "define", "use", "blocks", "downsample", "stages")


def expand(source: SpecLike, overrides: Overrides | None = None) -> str:
    """A spec as YAML that says everything where it stands.

    What it extends is merged, the files that it uses are in it, names and expressions have their values, patterns name
    every layer, and a block has one form for each set of values that its layers give it. What only the maps know, such
    as `$(4 * in)`, stays, and so do the definitions that are used. The network is the same, and so is its hash.

    Args:
        source: a zoo name, path, mapping or Spec without holes.
        overrides: values to replace by path.
    Raises: SpecError for whatever is wrong with it, and for a hole that is not filled.
    """
    spec = load(source, overrides)
    return parse(Document(plain(_known(_Expansion(spec).tree())), Locs())).to_yaml()


class _Expansion:
    def __init__(self, spec: Spec) -> None:
        self.spec, self.plan = spec, resolve(spec)
        self.values = Values(Report(spec.locs), None)
        self.scope = Scope(spec.lifted.get("let", {}), ("let",)).with_place({"classes": self.plan.num_classes})
        self.blocks: dict[str, Any] = {}
        self.names: dict[tuple[str, str], str] = {}

    def tree(self) -> dict[str, Any]:
        """The whole spec, with expressions of what only the maps know."""
        lifted = self.spec.lifted
        tree = {k: self.read(v, self.scope) for k, v in lifted.items() if k not in (*_GONE, *_APART)}
        if "about" in lifted:
            tree["about"] = lifted["about"]
        tree["stages"] = [self.stage(stage) for stage in self.plan.stages]
        if self.blocks:
            tree["blocks"] = self.blocks
        tree |= _downsamples(self.plan, tree["stages"])
        tree |= _definitions(self.plan.glossary, lifted, tree)
        return {key: tree[key] for key in Spec.model_fields if key in tree}

    def read(self, value: Any, scope: Scope) -> Any:
        return self.values.deep(value, (), scope, Origins())

    def stage(self, stage: Stage) -> dict[str, Any]:
        """A stage with the names of its layers; its downsample is not in it."""
        written = self.values.shallow(self.spec.lifted["stages"][stage.index], stage.path, self.scope, Origins())
        place = {**self.scope.place, "stage": stage.index, "depth": len(stage.layers)}
        scope = Scope(written.get("let", {}), (*stage.path, "let"), self.scope).with_place(place)
        tree = {k: self.read(v, scope) for k, v in written.items() if k not in ("let", "layers", "downsample")}
        if stage.layers:
            layers = pattern_of([self.block(name, branches) for name, branches in stage.layers])
            tree |= {"depth": len(stage.layers), "layers": layers}
        return tree

    def block(self, name: str, branches: Sequence[Branch]) -> str:
        """The name of the block that says what a layer is made of."""
        tree = [_branch(branch) for branch in branches]
        said = name, dump_yaml(plain(_known(tree)))  # as text, for 1 and true are equal
        if said not in self.names:
            plain_name = name.replace(".", "_")
            free = (n for i in count(1) if (n := plain_name if i == 1 else f"{plain_name}_{i}") not in self.blocks)
            self.names[said] = next(free)
            self.blocks[self.names[said]] = tree
        return self.names[said]


def _branch(branch: Branch) -> Any:
    tree = branch.op.spec.written()
    if not tree.keys().isdisjoint(_OF_BRANCH):
        tree = {"op": [tree]}
    if branch.norm is not None:
        tree["norm"] = _op(branch.norm.spec)
    for name in BranchKeys.model_fields:
        value = getattr(branch.keys, name)
        if isinstance(value, ScaleSpec):
            value = value.branch if value.skip is None else value.model_dump(exclude_none=True)
        if value is None or value is True:  # what each of them is by default
            continue
        tree[name] = _op(value) if isinstance(value, OpSpec) else value
    return tree


def _op(spec: OpSpec) -> Any:
    """As it is written, in the short form where there is one."""
    tree = spec.written()
    return tree["op"] if len(tree) == 1 else tree


def _downsamples(plan: Plan, stages: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The downsample of all stages but the first and those with `from`; where they have not one, each is put into its
    stage."""
    given = [_op(stage.downsample.spec) if stage.downsample is not None else "none" for stage in plan.stages]
    takes = [stage.index > 0 and not stage.reads.written for stage in plan.stages]
    shared = [downsample for downsample, is_taken in zip(given, takes, strict=True) if is_taken]
    is_one = bool(shared) and all(downsample == shared[0] for downsample in shared)
    for tree, downsample, is_taken in zip(stages, given, takes, strict=True):
        if downsample != "none" and not (is_one and is_taken):
            tree["downsample"] = downsample
    return {"downsample": shared[0]} if is_one else {}


def _definitions(glossary: Glossary, lifted: Mapping[str, Any], network: dict[str, Any]) -> Mapping[str, Any]:
    """The definitions that the network may use: those of all files in one table, unless a name stands for two."""
    table = flat(glossary, network)
    if table is not None:
        return {"define": table} if table else {}
    both = {k: v for k, v in lifted.items() if k in ("define", "use")}
    kept = without_unused_definitions({**network, **both}, ())
    return {k: kept[k] for k in both if k in kept}


def pattern_of(names: Sequence[str]) -> str:
    """The layers of a stage as a spec writes them."""
    runs = [(name, len(list(run))) for name, run in groupby(names)]
    if len(runs) == 1:
        return names[0]
    text = " ".join(name if times == 1 else f"{name}*{times}" for name, times in runs)
    if len(text) <= MAX_PATTERN:
        return text
    period = next(p for p in range(1, len(names) + 1) if all(n == names[i % p] for i, n in enumerate(names)))
    return f"({' '.join(names[:period])})*"


def _known(value: Any) -> Any:
    """Expressions as text, with the values of what is known in them."""
    if isinstance(value, Expr):
        node = _without_lists(value.node)
        return f"${node.value[0]}" if node.kind == "name" else f"$({text_of(node)})"
    if isinstance(value, dict):
        return {k: v if k == "define" else _known(v) for k, v in value.items()}
    return [_known(v) for v in value] if isinstance(value, list | tuple) else value


def _without_lists(node: Node) -> Node:
    """An expression has no way to write a list: an item of one that is known is said by cases."""
    parts = tuple(_without_lists(part) for part in node.parts)
    if node.kind != "index" or parts[0].kind != "constant":
        return replace(node, parts=parts)
    items = [Node("constant", 0, 0, (), item) for item in parts[0].value]
    cases = items.pop()
    for i, item in reversed(list(enumerate(items))):
        case = Node("compare", 0, 0, (parts[1], Node("constant", 0, 0, (), i)), ("==",))
        cases = Node("if", 0, 0, (case, item, cases))
    return cases

"""Where a spec lies in a space: the answers that make this spec of it, or the reasons why none do.

The space's tree, holes and all, is matched with the resolved spec: blocks by their parameters with defaults,
patterns by the layers they give, connections by which layer feeds which. What is found is verified: the space
with these answers must compile to the spec's hash.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.graph.connect import Feeds, make_rule
from blockforge.errors import OpError, SearchError, SpecError
from blockforge.search.space.matching import (
    Bindings,
    Lets,
    Part,
    block,
    branch,
    exactly,
    fills,
    in_turn,
    layer_lists,
    match,
    options,
    within_stage,
)
from blockforge.search.space.reads import reads
from blockforge.spec import Hole, Spec, SpecLike, fill, load, patterns
from blockforge.spec.glossary import Glossary
from blockforge.spec.model import BranchKeys
from blockforge.spec.plan import Head, Stage
from blockforge.spec.values import all_values, names_in, plain

RECIPE = ("input", "num_classes", "drop_path")
"""What a spec takes from the space that it is looked for in: image, classes and drop path are not structure."""
_MAX_FOUND = 200
_MAX_WAYS = 500
_MAX_REASONS = 8


class NotInSpaceError(SearchError):
    """A spec that is no point of a space; `reasons` say where it leaves it."""

    def __init__(self, message: str, reasons: list[str]) -> None:
        super().__init__("\n".join([message, *(f"  {r}" for r in reasons)]))
        self.reasons = reasons


def locate(space: Spec, source: SpecLike) -> dict[str, Any]:
    """The answers that make the network of a spec out of a space, with the space's image size, classes and drop path.

    Args:
        space: a spec with holes.
        source: a spec without, by name, path or mapping.
    Raises: NotInSpaceError with the reasons. SpecError if the spec is wrong.
    """
    spec = load(source)
    target = compile_spec(spec)
    failed: str | None = None
    ways = [_parts(space.lifted, target, kept) for kept in _kept_stages(space.lifted, len(target.plan.stages))]
    matches = (known for parts in ways for known in in_turn(list(parts.values()), {}))
    for known in itertools.islice(matches, _MAX_FOUND):
        try:
            arch = compile_spec(space, ask=functools.partial(_answer, known))
        except SpecError as e:
            failed = failed or e.diagnostics[0].message
            continue
        filled = fill(space, arch.plan.answers).tree
        recipe = {key: filled[key] for key in RECIPE if key in filled}
        if "drop_path" not in recipe:
            recipe["drop_path"] = 0.0
        if compile_spec(spec, recipe).hash == arch.hash:
            return dict(arch.plan.answers)
        failed = failed or "its blocks match, but the network that they make differs"
    raise NotInSpaceError(
        f"'{spec.name}' is no point of '{space.name}'",
        [failed] if failed else _reasons(space.lifted, ways, target),
    )


def _kept_stages(tree: Mapping[str, Any], number: int) -> list[tuple[int, ...]]:
    """Which of the space's stages may be those of a spec with so many, the others left empty: indices, in order."""
    lets: Lets = (tree.get("let", {}),)
    stages = tree["stages"]
    may_be_empty = [i for i, stage in enumerate(stages) if next(_empty(stage, lets, {}), None) is not None]
    empty = itertools.combinations(may_be_empty, max(0, len(stages) - number))
    kept = [tuple(i for i in range(len(stages)) if i not in out) for out in empty]
    return [way for way in kept if len(way) == number][:_MAX_WAYS]


def _empty(value: Any, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A stage that passes its map on."""
    for own, bindings in options(value, lets, known):
        if isinstance(own, dict) and own.keys() == {"downsample"}:
            yield from match(own["downsample"], "identity", lets, bindings)


def _answer(known: Bindings, hole: Hole) -> Any:
    return known.get(hole.name, hole.labels[0] if hole.labels else hole.low)


def _parts(tree: Mapping[str, Any], target: Architecture, kept: tuple[int, ...]) -> dict[str, Part]:
    """Each part of the space's tree as a function that matches it with the spec's. `kept`: see `_kept_stages`."""
    plan, glossary = target.plan, Glossary.of(tree)
    lets: Lets = (tree.get("let", {}), _called(glossary, plan.glossary))
    stem = {"dim": plan.stem_dim} if getattr(plan.stem and plan.stem.spec, "dim", None) is not None else {}
    parts: dict[str, Part] = {"stem": functools.partial(_stem, tree["stem"], plan.stem, stem.get("dim"), lets)}
    for name, written in _with_holes(glossary).items():
        if (same := plan.glossary.find(name)) is not None:
            parts[f"define.{name}"] = functools.partial(exactly, written, same.glossary.define[same.name])
    for i, stage in enumerate(tree["stages"]):
        if i in kept:
            parts |= _stage_parts(tree, i, plan.stages[kept.index(i)], lets)
        else:
            parts[f"stages.{i}"] = functools.partial(_empty, stage, lets)
    parts["skips"] = functools.partial(_skips, tree.get("skips", []), target, lets)
    if norms := [stage.norm for stage in plan.stages if stage.takes_norm]:
        parts["stage_norm"] = functools.partial(block, tree.get("stage_norm", "none"), norms[0], lets)
    heads = {head.path: head for head in plan.heads}
    own = {"head": tree["head"]} if "head" in tree else {f"heads.{name}": head for name, head in tree["heads"].items()}
    for name in {**own, **heads}:
        parts[name] = functools.partial(_head, tree, own.get(name, "none"), heads.get(name), lets)
    return parts


def _head(tree: Mapping[str, Any], value: Any, target: Head | None, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    op = target.op if target is not None else None
    for written, bindings in options(value, lets, known):
        if target is None or not isinstance(written, dict) or "from" not in written:
            yield from block(written, op, lets, bindings) if target is None or not target.reads.written else ()
            continue
        parts: list[Part] = [functools.partial(reads, tree, written, target, lets)]
        own = {"op": written["op"]} if "op" in written else {"op": []}
        yield from in_turn([*parts, functools.partial(block, own, op, lets)], bindings)


def _called(space: Glossary, spec: Glossary) -> dict[tuple[str], tuple[str, Mapping[str, Any]]]:
    """The definitions of a spec that a space has too: the spec's name, what the space calls it, and its parameters."""
    ours = [(name, definition) for name in space.names() if (definition := space.find(name)) is not None]
    theirs = [(name, definition) for name in spec.names() if (definition := spec.find(name)) is not None]
    same = [(a, b, f) for a, g in theirs for b, f in ours if a == b or g == f]
    return {(a,): (b, f.params) for a, b, f in same}


def _with_holes(glossary: Glossary) -> dict[str, Any]:
    """The definitions that hold holes, as they are written."""
    definitions = [(name, glossary.find(name)) for name in glossary.names()]
    written = {name: d.glossary.define[d.name] for name, d in definitions if d is not None}
    return {name: tree for name, tree in written.items() if any(isinstance(v, Hole) for v in all_values(tree))}


def _stem(tree: Any, target: Any, dim: int | None, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    for option, bindings in options(tree, lets, known):
        own = option if isinstance(option, dict) else {"op": option}
        rest = {k: v for k, v in own.items() if k != "dim"}
        yield from in_turn(
            [functools.partial(block, rest, target, lets), functools.partial(match, own.get("dim", "none"), dim, lets)],
            bindings,
        )


def _stage_parts(tree: Mapping[str, Any], index: int, stage: Stage, lets: Lets) -> dict[str, Part]:
    """Of the space's stage of this index, which the spec's `stage` is to be."""
    name = f"stages.{index}"
    value = tree["stages"][index]

    def part(of: Callable[[dict[str, Any], Lets, Bindings], Iterator[Bindings]]) -> Part:
        def run(known: Bindings) -> Iterator[Bindings]:
            for own, bindings in options(value, lets, known):
                yield from of(own, within_stage(own, index, lets), bindings)

        return run

    def downsample(own: dict[str, Any], near: Lets, known: Bindings) -> Iterator[Bindings]:
        shared = tree.get("downsample", "none") if index and "from" not in own else "none"
        return block(own.get("downsample", shared), stage.downsample, near, known)

    def own_norm(own: dict[str, Any], near: Lets, known: Bindings) -> Iterator[Bindings]:
        if own.keys() & {"from", "stage_norm"}:
            return block(own.get("stage_norm", "none"), stage.norm, near, known)
        return iter([known] if stage.takes_norm else [])

    return {
        f"{name}.dim": part(lambda own, near, known: match(own.get("dim", "none"), stage.dim, near, known)),
        f"{name}.depth": part(lambda own, near, known: _depth(own, stage, near, known)),
        f"{name}.window": part(lambda own, near, known: match(own.get("window", "none"), stage.window, near, known)),
        f"{name}.from": part(lambda own, near, known: reads(tree, own, stage, near, known)),
        f"{name}.downsample": part(downsample),
        f"{name}.stage_norm": part(own_norm),
        f"{name}.connect": part(lambda own, near, known: _connect(own.get("connect", "none"), stage, near, known)),
        f"{name}.layers": part(lambda own, near, known: _layers(tree, own.get("layers"), stage, near, known)),
    }


def _depth(own: Mapping[str, Any], stage: Stage, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """Without a depth the layers say how many there are."""
    return match(own["depth"], len(stage.layers), lets, known) if "depth" in own else iter([known])


def _layers(tree: Mapping[str, Any], value: Any, stage: Stage, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """Patterns that give layers whose blocks match, whatever they are called."""
    by_layer = any("layer" in names_in(value) for value in all_values(tree))
    for pattern, items, bindings in layer_lists(value, lets, known):
        try:
            names = patterns.expand(pattern, len(stage.layers))
        except patterns.PatternError:
            continue
        pairs = enumerate(zip(names, stage.layers, strict=True))
        wanted = {(ours, id(branches), i if by_layer else 0): branches for i, (ours, (_, branches)) in pairs}
        parts: list[Part] = [
            functools.partial(_layer, tree, written, branches, (*lets, {"layer": i}))
            for (ours, _, i), branches in wanted.items()
            for written in [items[ours] if isinstance(ours, int) else ours]
        ]
        yield from in_turn(parts, bindings)


def _layer(tree: Mapping[str, Any], name: Any, branches: Any, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """A layer by the name of its block, or by its op."""
    if not isinstance(name, str) or name not in tree.get("blocks", {}):
        if len(branches) == 1 and branches[0].norm is None and branches[0].keys == BranchKeys(skip=False):
            yield from block(name if not isinstance(name, str) else {"op": name}, branches[0].op, lets, known)
        return
    for defaults, bound in options(tree.get("defaults", {}), lets, known):
        for trees, bindings in options(tree["blocks"][name], lets, bound):
            if len(trees) != len(branches):
                continue
            pairs = zip(trees, branches, strict=True)
            yield from in_turn([functools.partial(branch, t, b, defaults, lets) for t, b in pairs], bindings)


def _connect(value: Any, stage: Stage, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    """Rules that connect the same layers, by an aggregator that matches."""
    wanted = _feeds(stage.connect.model_dump(exclude={"aggregate"}), stage) if stage.connect is not None else {}
    for option, bindings in options(value, lets, known):
        if option is None or option == "none":
            if not wanted:
                yield bindings
            continue
        rule = {k: v for k, v in option.items() if k != "aggregate"}
        for filled, bound in fills(rule, lets, bindings):
            if _feeds(filled, stage) != wanted:
                continue
            if wanted:
                yield from block(option["aggregate"], stage.aggregate, lets, bound)
            else:  # nothing is fed: any aggregator does
                yield from (last for _, last in fills(option["aggregate"], lets, bound))


def _feeds(rule: dict[str, Any], stage: Stage) -> Feeds | None:
    try:
        made = make_rule(rule["rule"], {k: v for k, v in rule.items() if k != "rule"})
        return made.sources(len(stage.layers), stage.index == 0)
    except (OpError, ValidationError):
        return None


def _skips(value: Any, target: Architecture, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    wanted = target.plan.skips
    for trees, bindings in options(value, lets, known):
        if len(trees) == len(wanted):
            pairs = zip(trees, wanted, strict=True)
            yield from in_turn([functools.partial(_skip, tree, skip, lets) for tree, skip in pairs], bindings)


def _skip(value: Any, target: Any, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    for tree, bindings in options(value, lets, known):
        ends: list[Part] = [
            functools.partial(match, tree["from"], target.source, lets),
            functools.partial(match, tree["to"], list(target.targets), lets),
            functools.partial(block, tree["op"], target.op, lets),
        ]
        yield from in_turn(ends, bindings)


def _reasons(tree: Mapping[str, Any], ways: list[dict[str, Part]], target: Architecture) -> list[str]:
    """The parts that cannot match, whatever the others are; those of the way that leaves fewest."""
    if not ways:
        return [f"stages: the spec has {len(target.plan.stages)}, the space {len(tree['stages'])}"]
    wrong = [[name for name, part in parts.items() if next(part({}), None) is None] for parts in ways]
    parts, names = min(zip(ways, wrong, strict=True), key=lambda way: len(way[1]))
    kept = [i for i in range(len(tree["stages"])) if f"stages.{i}" not in parts]
    reasons = [f"{name}: {_compared(tree, name, target, kept)}" for name in names]
    if not reasons:
        return ["each part of it lies in the space, but not all with one value for each hole that they share"]
    more = len(reasons) - _MAX_REASONS
    return [*reasons[:_MAX_REASONS], *([f"and {more} more"] if more > 0 else [])]


def _compared(tree: Mapping[str, Any], name: str, target: Architecture, kept: list[int]) -> str:
    """What the spec has at a place, and what the space."""
    has: Any = target.spec.tree
    ours: Any = tree
    for key in name.split("."):
        has = _below(has, kept.index(int(key)) if key.isdigit() else key)
        ours = _below(ours, int(key) if key.isdigit() else key)
    offered = ours.values() if isinstance(ours, Hole) else plain(ours)
    return f"the spec has {_short(has)}, the space {_short(offered)}"


def _below(value: Any, key: str | int) -> Any:
    if isinstance(value, list) and isinstance(key, int):
        return value[key]
    return value.get(key, "none") if isinstance(value, dict) else "none"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."

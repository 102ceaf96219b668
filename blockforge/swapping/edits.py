"""A spec with other branches in some layers."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blockforge.compiler.graph.connect import Feeds, Rule, fed_by, make_rule
from blockforge.spec import Spec, SpecLike, from_text, load, resolve
from blockforge.spec.expanded import expand, pattern_of

if TYPE_CHECKING:
    from blockforge.compiler import Architecture
    from blockforge.swapping.slots import Alternative, Slot


def written_out(source: SpecLike) -> Spec:
    """A spec whose layers are named one by one and whose blocks say all their values."""
    return from_text(expand(source))


def edited(spec: Spec, alternatives: Iterable[Alternative]) -> Spec:
    """A spec that is written out, with alternatives in its slots. Layers of which nothing is left are left out.

    Blocks that change get names of their own, after what is changed: `msa_thin`, `msa_part`, `msa_dw` where the
    foreign block `dw` stands in it; and with a number where there are several of a name.
    """
    chosen: dict[tuple[int, int], dict[int, Alternative]] = {}
    widths: dict[int, Mapping[str, Any]] = {}
    reads: dict[int, dict[int, Sequence[int]]] = {}
    tree = copy.deepcopy(dict(spec.tree))
    for alternative in alternatives:
        slot = alternative.slot
        if slot.is_sources or (alternative.is_whole and alternative.is_skip):
            sources = [] if alternative.branch is None else alternative.branch["sources"]
            before = reads.setdefault(slot.stage, {}).get(slot.layer, sources)
            reads[slot.stage][slot.layer] = min(sources, before, key=len)
        if slot.is_sources:
            continue
        if slot.is_width:
            assert alternative.branch is not None
            widths[slot.stage] = alternative.branch
            continue
        chosen.setdefault((slot.stage, slot.layer), {})[slot.branch] = alternative
        if alternative.define:
            tree["define"] = {**tree.get("define", {}), **alternative.define}
    blocks: dict[str, list[Any]] = {}
    for stage in resolve(spec).stages:
        if not stage.layers:
            continue
        names = []
        for number, (name, _) in enumerate(stage.layers):
            changes = chosen.get((stage.index, number), {})
            branches = _branches(widths.get(stage.index, tree)["blocks"][name], changes)
            if branches:
                stem = f"{name}_{_sort(changes.values())}"
                names.append(_named(blocks, tree["blocks"], name, stem, branches))
        said = tree["stages"][stage.index]
        said["depth"] = len(names)
        said |= {key: value for key, value in widths.get(stage.index, {}).items() if key != "blocks"}
        if stage.index in reads:
            said["connect"] = _connected(said["connect"], len(stage.layers), stage.index, reads[stage.index])
        if names:
            said["layers"] = pattern_of(names)
        else:
            said.pop("layers")
    tree["blocks"] = blocks
    return load(tree)


def feeds_of(connect: Mapping[str, Any], depth: int, stage: int) -> Feeds:
    """Which layers of a stage read which, as `connect` of a spec that is written out says."""
    return fed_by(_rule(connect), depth, stage == 0)


def _rule(connect: Mapping[str, Any]) -> Rule:
    return make_rule(connect["rule"], {k: v for k, v in connect.items() if k not in ("rule", "aggregate")})


def _connected(
    connect: Mapping[str, Any], depth: int, stage: int, reads: Mapping[int, Sequence[int]]
) -> dict[str, Any] | str:
    """`connect` where some layers read others: by the same rule with one smaller number, if there is one; else edge by
    edge."""
    feeds = {
        layer: tuple(sources) for layer, sources in {**feeds_of(connect, depth, stage), **reads}.items() if sources
    }
    if not feeds:
        return "none"
    for key, value in _rule(connect).model_dump().items():
        most = value if type(value) is int else depth if value == "all" else 1
        for less in range(1, most):
            if feeds_of({**connect, key: less}, depth, stage) == feeds:
                return {**connect, key: less}
    edges = [[source, layer] for layer in sorted(feeds) for source in feeds[layer]]
    return {"rule": "edges", "edges": edges, "aggregate": connect["aggregate"]}


def branch_at(spec: Spec, arch: Architecture, slot: Slot) -> dict[str, Any]:
    """The branch in a slot, as it is written out."""
    block = arch.plan.stages[slot.stage].layers[slot.layer][0]
    branch = spec.tree["blocks"][block][slot.branch]
    return branch if isinstance(branch, dict) else {"op": branch}


def _branches(branches: list[Any], changes: Mapping[int, Alternative]) -> list[Any]:
    """A block's branches with some of them changed or gone."""
    kept = []
    for number, branch in enumerate(branches):
        change = changes.get(number)
        if change is None:
            kept.append(branch)
        elif change.branch is not None:
            kept.append(dict(change.branch))
    return kept


def _sort(changes: Collection[Alternative]) -> str:
    """What becomes of a block, in a word: the foreign ones that stand in it, or that it is a part, or thinner."""
    foreign = dict.fromkeys(change.label.partition(" ")[0] for change in changes if change.is_foreign)
    return "_".join(foreign) or ("part" if any(change.is_skip for change in changes) else "thin")


def _named(blocks: dict[str, list[Any]], before: Mapping[str, Any], name: str, stem: str, branches: list[Any]) -> str:
    """The name under which `blocks` has these branches; put there if they are new."""
    if branches == before[name]:
        blocks[name] = branches
        return name
    number = 1
    while True:
        free = stem if number == 1 else f"{stem}_{number}"
        if blocks.get(free, before.get(free, branches)) == branches:
            blocks[free] = branches
            return free
        number += 1

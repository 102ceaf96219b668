"""The neighbourhood of a network as a space: a spec without holes in, the same spec with holes where it may change out.

One rule for any spec. What it says is written out (`expand`), each stage with blocks of its own. Then every depth,
width, pattern of layers, op and parameter is opened with its neighbours (`neighbours`), and each neighbour is compiled
alone, beside the rest as it was. Those that fit stay: a network comes out, its stages have maps of the same sizes, and
it costs half to twice as much. What has no neighbour left stays a value.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import Locs, Path, SearchError, SpecError
from blockforge.search.space.neighbours import Open, neighbours_of, neighbours_of_rule
from blockforge.search.space.widths import Widths
from blockforge.spec import Hole, Spec, SpecLike, from_text, holes, load, patterns
from blockforge.spec.expanded import expand
from blockforge.spec.load import parse
from blockforge.spec.override import Overrides
from blockforge.spec.values import names_in
from blockforge.spec.yaml.loader import Document

_WIDTH_STEPS = 3
"""Widths on each side."""
_DEPTH_SHARE = 4
"""A stage may gain or lose a quarter of its layers, and one at least."""
_COSTS = (0.5, 2.0)
"""What one change may do to the multiply-adds."""


def around(source: SpecLike, overrides: Overrides | None = None) -> Spec:
    """The neighbourhood of a network: a space that holds it, readable as YAML.

    Args:
        source: a spec without holes, by name, path or mapping.
        overrides: values of it to replace by path first.
    Raises: SpecError if the spec is wrong, SearchError if it has holes or nothing in it may change.
    """
    spec = load(source, overrides)
    if holes(spec):
        raise SearchError(
            f"'{spec.name}' has holes: it is a space, and around what is not said\n"
            f"  hint: search it, blockforge search {spec.name}; or fill it first, --set HOLE=VALUE"
        )
    start = compile_spec(spec)
    tree = _written_out(start)
    openings = _distinct([*_widths(tree, start), *_in_stages(tree), *_ops(tree)])
    wide = _with_holes(tree, openings)
    kept = _fitting(_parsed(wide), start, {opened.path: opened for opened in openings})
    if not kept:
        hint = "write holes yourself, as in depth: {$int: [2, 4]}"
        raise SearchError(f"nothing in '{spec.name}' has a neighbour that fits\n  hint: {hint}")
    return _parsed(_with_holes(tree, kept))


def _parsed(tree: dict[str, Any]) -> Spec:
    return parse(Document(tree, Locs()))


def _written_out(start: Architecture) -> dict[str, Any]:
    """The spec with all that it says where it stands, a block for each stage that has it, patterns of any length."""
    tree = copy.deepcopy(from_text(expand(start.spec)).tree)
    tree.pop("about", None)
    tree["name"] = f"around_{start.name}"
    blocks = tree.pop("blocks", {})
    own: dict[str, Any] = {}
    users = [
        {name for name, _ in patterns.names(stage["layers"])} if _is_pattern(stage) else set()
        for stage in tree["stages"]
    ]
    taken = set(blocks)
    for i, stage in enumerate(tree["stages"]):
        if not _is_pattern(stage):
            continue
        new = {}
        for name in sorted(users[i] & blocks.keys()):
            alone = sum(name in names for names in users) == 1
            new[name] = name if alone else _free(f"{name}_s{i}", taken)
            own[new[name]] = copy.deepcopy(blocks[name])
        layers = [new.get(name, name) for name in patterns.expand(stage["layers"], stage.get("depth"))]
        stage["layers"] = _starred(layers)
    if own:
        tree["blocks"] = own
    return {key: tree[key] for key in Spec.model_fields if key in tree}


def _is_pattern(stage: Any) -> bool:
    return isinstance(stage, dict) and isinstance(stage.get("layers"), str)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _starred(layers: Sequence[str]) -> str:
    """A pattern that gives these layers and follows the depth: rounds, equal shares or the longest run."""
    runs = [(name, len(list(run))) for name, run in groupby(layers)]
    if len(runs) == 1:
        return runs[0][0]
    rounds = [f"({' '.join(layers[:period])})*" for period in range(2, len(layers) // 2 + 1)]
    shares = " ".join(f"{name}*" for name, _ in runs)
    for text in [*rounds, *([shares] if len(runs) == len(set(layers)) else [])]:
        if list(patterns.expand(text, len(layers))) == list(layers):
            return text
    longest = max(range(len(runs)), key=lambda i: runs[i][1])
    return " ".join(
        f"{name}*" if i == longest else name if times == 1 else f"{name}*{times}"
        for i, (name, times) in enumerate(runs)
    )


def _widths(tree: dict[str, Any], start: Architecture) -> Iterator[Open]:
    """A hole for each group of widths that are one, or that the spec computes from one name; `tree` refers to it."""
    widths = Widths(start)
    ties = _tied(start, widths)
    for first, dim in enumerate(widths.start):
        tied = [group for group, to in enumerate(ties) if to == first]
        paths = {path: widths.start[group] // dim for group in tied for path in widths.paths(group)}
        if not paths:
            continue
        step = widths.step(first, dim, 8)
        options = (dim, *(other for other in widths.ladder(first, dim, step, _WIDTH_STEPS) if other != dim))
        if len(paths) == 1:
            yield Open(next(iter(paths)), options)
            continue
        name = f"width_{first}"
        tree.setdefault("let", {})[name] = dim
        for path, times in paths.items():
            _put(tree, path, f"${name}" if times == 1 else f"$({times} * {name})")
        yield Open(("let", name), options)


def _tied(start: Architecture, widths: Widths) -> list[int]:
    """For each group the first one whose width it is a multiple of, by what the spec itself computes them from."""
    names = [_names_of(start.source.lifted, widths.paths(group)) for group in range(len(widths.groups))]
    firsts: list[int] = []
    for group, dim in enumerate(widths.start):
        same = (i for i in range(group) if firsts[i] == i and names[group] & names[i] and dim % widths.start[i] == 0)
        firsts.append(next(same, group))
    return firsts


def _names_of(tree: Mapping[str, Any], paths: list[Path]) -> frozenset[str]:
    """The names that the values at these paths are computed from."""
    return frozenset(name for path in paths for name in names_in(_at(tree, path)))


def _in_stages(tree: dict[str, Any]) -> Iterator[Open]:
    """Depths, interleavings, windows and rules of connection."""
    for i, stage in enumerate(tree["stages"]):
        path: Path = ("stages", i)
        if _is_pattern(stage):
            depth = stage["depth"]
            reach = max(1, round(depth / _DEPTH_SHARE))
            others = [n for n in range(max(1, depth - reach), depth + reach + 1) if n != depth]
            yield Open((*path, "depth"), (depth, *others))
            if len(mixed := _interleavings(stage["layers"])) > 1:
                yield Open((*path, "layers"), tuple(mixed))
        if isinstance(stage.get("window"), int):
            window = stage["window"]
            yield Open((*path, "window"), (window, *(n for n in (window // 2, 2 * window) if n > 1)))
        if isinstance(stage.get("connect"), dict):
            yield from neighbours_of_rule(stage["connect"], (*path, "connect"))


def _interleavings(pattern: str) -> list[str]:
    """A pattern and others of its names: each alone, and of two the halves and the turns."""
    names = list(dict.fromkeys(name for name, _ in patterns.names(pattern)))
    if len(names) < 2:
        return [pattern]
    a, b = names[:2]
    return list(dict.fromkeys([pattern, *names, f"{a}* {b}*", f"{b}* {a}*", f"({a} {b})*", f"({b} {a})*"]))


def _ops(tree: dict[str, Any]) -> Iterator[Open]:
    """Ops of all places, and their parameters."""
    define = tree.get("define", {})
    for key in ("stem", "downsample", "skips"):
        if key in tree:
            yield from neighbours_of(tree[key], (key,), define)
    for name, branches in tree.get("blocks", {}).items():
        yield from neighbours_of(branches, ("blocks", name), define)
    for i, stage in enumerate(tree["stages"]):
        for key in ("downsample", "layers", "join"):
            if key in stage and not (key == "layers" and isinstance(stage[key], str)):
                yield from neighbours_of(stage[key], ("stages", i, key), define)
        if isinstance(stage.get("connect"), dict):
            yield from neighbours_of(stage["connect"].get("aggregate"), ("stages", i, "connect", "aggregate"), define)


def _distinct(openings: list[Open]) -> list[Open]:
    """The first of those at one path: the width of a stem stands among its parameters too."""
    by_path: dict[Path, Open] = {}
    for opened in openings:
        by_path.setdefault(opened.path, opened)
    return list(by_path.values())


def _with_holes(tree: dict[str, Any], openings: list[Open]) -> dict[str, Any]:
    """The tree with a hole at each path; those inside an op go into its own option, the first."""
    wide = copy.deepcopy(tree)
    inner = sorted(openings, key=lambda opened: -len(opened.path))
    for opened in inner:
        own = _at(wide, opened.path) if opened.labels else opened.options[0]
        _put(wide, opened.path, _hole(own, opened))
    return wide


def _hole(own: Any, opened: Open) -> dict[str, Any]:
    options = [own, *opened.options[1:]]
    if opened.labels:
        return {"$choice": dict(zip(opened.labels, options, strict=True))}
    if all(isinstance(option, int) and not isinstance(option, bool) for option in options):
        ordered = sorted(options)
        steps = {b - a for a, b in pairwise(ordered)}
        if len(ordered) > 2 and len(steps) == 1:
            step = steps.pop()
            return {"$int": [ordered[0], ordered[-1], *([step] if step > 1 else [])]}
    are_numbers = all(isinstance(option, int | float) and not isinstance(option, bool) for option in options)
    return {"$choice": sorted(options) if are_numbers else options}


def _at(tree: Any, path: Path) -> Any:
    """What stands at a path; None where nothing does."""
    for key in path:
        is_there = key in tree if isinstance(tree, dict) else isinstance(tree, list)
        tree = tree[key] if is_there else None
    return tree


def _put(tree: Any, path: Path, value: Any) -> None:
    """An op that is a name alone becomes a mapping where a parameter is put into it."""
    holder = tree
    for key in path[:-1]:
        if isinstance(holder[key], str):
            holder[key] = {"op": holder[key]}
        holder = holder[key]
    holder[path[-1]] = value


def _fitting(space: Spec, start: Architecture, openings: Mapping[Path, Open]) -> list[Open]:
    """What is left of each: the options with which the network compiles, the rest being as it was."""
    own = {hole.name: _own_label(opened) for hole, opened in _holes_of(space, openings)}
    kept = []
    for hole, opened in _holes_of(space, openings):
        labels = opened.labels or opened.options
        fits = [0, *(i for i in range(1, len(labels)) if _fits(space, {**own, hole.name: labels[i]}, start, opened))]
        if len(fits) > 1:
            options, names = (tuple(of[i] for i in fits) if of else () for of in (opened.options, opened.labels))
            kept.append(Open(opened.path, options, names, opened.must_count, opened.is_written))
    return kept


def _own_label(opened: Open) -> Any:
    return (opened.labels or opened.options)[0]


def _holes_of(space: Spec, openings: Mapping[Path, Open]) -> list[tuple[Hole, Open]]:
    """Each hole of a space with what it was made of."""
    return [(hole, openings[hole.path]) for hole in holes(space).values()]


def _fits(space: Spec, answers: Mapping[str, Any], start: Architecture, opened: Open) -> bool:
    try:
        arch = compile_spec(space, ask=lambda hole: answers[hole.name])
    except SpecError:
        return False
    is_near = _COSTS[0] * start.macs <= arch.macs <= _COSTS[1] * start.macs
    differs = arch.macs != start.macs if opened.must_count else arch.hash != start.hash
    return is_near and differs and _map_sizes(arch) == _map_sizes(start)


def _map_sizes(arch: Architecture) -> list[tuple[int, int]]:
    return [(shape.height, shape.width) for shape in arch.stage_maps()]

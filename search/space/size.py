"""How many networks a space holds: an exact count of what its holes can be together, and a walk through them all.

Which holes are asked for depends on what others became: a block's only if a layer names it, connections' only if
there are some. The count follows the compiler in that. It adds up choices that lead to different holes and
multiplies what is independent, so that it takes milliseconds for spaces of any size.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import SearchError, SpecError
from blockforge.search.space.load import number_of_values
from blockforge.search.space.matching import Lets, fills, layer_lists, options, within_stage
from blockforge.spec import Hole, Spec, holes, patterns
from blockforge.spec.glossary import Glossary, reached
from blockforge.spec.model import Basics
from blockforge.spec.scope import OF_BRANCHES, is_op
from blockforge.spec.values import Expr, Ref, all_values

MAX_ENUMERATED = 20_000
_ASKED = object()
_SHARED = ("let", "blocks", "defaults", "downsample")
"""Parts of a spec whose holes several stages may ask for; all others have one place."""

Key = frozenset[tuple[str, Any]]
"""Holes that were asked for, each with its answer where that leads to other holes, else with `_ASKED`."""
Ways = dict[Key, int]
"""Key -> in how many ways all holes that are not in it can be filled."""

_ONE: Ways = {frozenset(): 1}


@dataclass(frozen=True)
class Size:
    """How many there are.

    Attributes:
        combinations: of answers to the holes that are asked for, by the compiler's rules.
        continuous: ranges of floats, which count once each.
        bounded_by: what makes this an upper bound on the number of networks.
    """

    combinations: int
    continuous: tuple[str, ...]
    bounded_by: tuple[str, ...]


def count(space: Spec) -> Size:
    """Count the combinations of a space's holes."""
    all_holes = holes(space)
    continuous = tuple(n for n, h in all_holes.items() if h.kind in ("float", "log") and h.low < h.high)
    reasons = ["blocks refuse some (heads that do not divide a width), and some give equal networks"]
    if relations := len(space.lifted.get("require", ())):
        reasons.insert(0, f"{relations} relation{'s' * (relations > 1)} in require")
    return Size(_Counter(space.lifted, all_holes).total(), continuous, tuple(reasons))


def enumerate_space(space: Spec) -> Iterator[tuple[dict[str, Any], Architecture | SpecError]]:
    """Every combination of answers, with the network or why there is none.

    Raises: SearchError if there are more than MAX_ENUMERATED, or ranges of floats.
    """
    size = count(space)
    if size.continuous:
        raise SearchError(f"'{space.name}' cannot be enumerated: {size.continuous[0]} is a range of floats")
    if size.combinations > MAX_ENUMERATED:
        text = f"'{space.name}' has {size.combinations:.3g} combinations; up to {MAX_ENUMERATED} are enumerated"
        raise SearchError(f"{text}\n  hint: --sample N, or fix some holes with --set")
    prefix: list[int] | None = []
    while prefix is not None:
        asked: list[tuple[Hole, int]] = []

        def ask(hole: Hole, prefix: list[int] = prefix, asked: list[tuple[Hole, int]] = asked) -> Any:
            index = prefix[len(asked)] if len(asked) < len(prefix) else 0
            asked.append((hole, index))
            return _value(hole, index)

        try:
            outcome: Architecture | SpecError = compile_spec(space, ask=ask)
        except SpecError as e:
            outcome = e
        yield {hole.name: _value(hole, index) for hole, index in asked}, outcome
        prefix = _next(asked)


def _next(asked: list[tuple[Hole, int]]) -> list[int] | None:
    """The indices that come after these, the last hole's first."""
    for i in range(len(asked) - 1, -1, -1):
        hole, index = asked[i]
        if index + 1 < number_of_values(hole):
            return [*(n for _, n in asked[:i]), index + 1]
    return None


def _value(hole: Hole, index: int) -> Any:
    return hole.labels[index] if hole.kind == "choice" else int(hole.low) + index * hole.step


_PARTS = ("stem", "skips", "stage_norm", "head", "heads")
"""Keys of a spec that are looked at as they stand."""


class _Counter:
    def __init__(self, tree: Mapping[str, Any], all_holes: dict[str, Hole]) -> None:
        self.tree, self.holes = tree, all_holes
        self.lets: Lets = (tree.get("let", {}),)

    def total(self) -> int:
        tree = self.tree
        basics = [self.value(tree[key], self.lets) for key in Basics.model_fields if key in tree]
        parts = [self.value(tree[key], self.lets) for key in _PARTS if key in tree]
        ways = _ONE
        for part in (*basics, *parts):
            ways = _join(ways, self.without(part, self._private))
        for i in range(len(tree["stages"])):
            ways = _join(ways, self._stage(i))
        ways = _join(ways, _join_all(self.value(written, ()) for written in _named_definitions(tree)))
        return sum(self.without(ways, lambda hole: True).values())

    # --- parts, as the compiler looks at them

    def _stage(self, index: int) -> Ways:
        total: Ways = {}
        for own, known in options(self.tree["stages"][index], self.lets, {}):
            lets = within_stage(own, index, self.lets)
            ways = {_key(known): 1}
            for said in ("dim", "window", "connect", "from", "join", "stage_norm"):
                if said in own:
                    ways = _join(ways, self.without(self.value(own[said], lets), self._private))
            if "downsample" in own or (index and "from" not in own):
                shared = own["downsample"] if "downsample" in own else self.tree.get("downsample")
                ways = _join(ways, self.without(self.value(shared, self.lets), self._private))
            ways = _join(ways, self._layers(own, lets))
            for key, number in self.without(ways, lambda hole: hole.written[:2] == ("stages", index)).items():
                total[key] = total.get(key, 0) + number
        return total

    def _layers(self, own: Mapping[str, Any], lets: Lets) -> Ways:
        """Depths and patterns, and the holes of the blocks that they lead to."""
        total: Ways = {}
        blocks: dict[tuple[str, ...], Ways] = {}
        for depth, known in fills(own.get("depth"), lets, {}):
            for pattern, items, bound in layer_lists(own.get("layers"), lets, known):
                try:
                    entries = set(patterns.expand(pattern, depth))
                except patterns.PatternError:
                    continue
                names = tuple(sorted(name for name in entries if isinstance(name, str)))
                if names not in blocks:
                    blocks[names] = _join_all(self._block(name, lets) for name in names)
                ops = _join_all(self.value(items[i], lets) for i in entries if isinstance(i, int))
                chosen = self.without({_key(bound): 1}, self._private, sizes=False)
                chosen = _join(chosen, self.without(ops, self._private))
                for key, number in _join(chosen, blocks[names]).items():
                    total[key] = total.get(key, 0) + number
        return total

    def _block(self, name: str, lets: Lets) -> Ways:
        if name not in self.tree.get("blocks", {}):
            return _ONE  # an op without parameters
        return self._each(
            self.tree["blocks"][name], lets, lambda trees: _join_all(self._branch(t, lets) for t in trees)
        )

    def _branch(self, tree: Any, lets: Lets) -> Ways:
        """A branch takes from `defaults` what it does not say."""

        def whole(given: Any) -> Ways:
            said = given if isinstance(given, dict) else {}
            taken = self.tree.get("defaults", {})
            if isinstance(taken, dict):
                taken = [taken[k] for k in ("norm", "scale") if k in taken and k not in said]
            return _join_all(self.value(v, lets) for v in (given, taken))

        return self._each(tree, lets, whole)

    def _each(self, value: Any, lets: Lets, of: Any) -> Ways:
        total: Ways = {}
        for option, known in options(value, lets, {}):
            for key, number in _join({_key(known): 1}, of(option)).items():
                total[key] = total.get(key, 0) + number
        return total

    def value(self, value: Any, lets: Lets) -> Ways:
        """The holes in a value."""
        if isinstance(value, Ref):
            given = next((let[value.name] for let in lets if value.name in let), None)
            return self.value(given, lets)
        if isinstance(value, Expr):
            return _join_all(self.value(Ref(name), lets) for name in sorted(value.names()))
        if isinstance(value, Hole):
            if _is_flat(value):
                return {frozenset([(value.name, _ASKED)]): 1}
            total: Ways = {}
            for label, option in zip(value.labels, value.options, strict=True):
                total |= _join({frozenset([(value.name, label)]): 1}, self.value(option, lets))
            return total
        if isinstance(value, dict) and is_op(value) and (left_out := list(options(value["when"], lets, {}))):
            beside = {k: v for k, v in value.items() if k != "when"}
            kept = {k: v for k, v in beside.items() if k in OF_BRANCHES}
            total = {}
            for is_there, known in left_out:
                ways = _join({_key(known): 1}, self.value(kept if is_there is False else beside, lets))
                for key, number in ways.items():
                    total[key] = total.get(key, 0) + number
            return total
        children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return _join_all(self.value(child, lets) for child in children)

    # --- holes that no other part asks for

    def _private(self, hole: Hole) -> bool:
        return hole.written[0] not in _SHARED and hole.written[2:3] != ("let",)

    def without(self, ways: Ways, private: Any, sizes: bool = True) -> Ways:
        """Holes that no other part asks for counted, and taken out of the keys. `sizes`: asked ones by their values."""
        total: Ways = {}
        for key, number in ways.items():
            own = [(name, answer) for name, answer in key if private(self.holes[name])]
            for name, answer in own:
                number *= number_of_values(self.holes[name]) if sizes and answer is _ASKED else 1
            rest = key.difference(own)
            total[rest] = total.get(rest, 0) + number
        return total


def _named_definitions(tree: Mapping[str, Any]) -> list[Any]:
    """The definitions that some candidate may use, as they are written."""
    values = all_values([v for k, v in tree.items() if k not in ("define", "use", "about", "require")])
    texts = [v for v in values if isinstance(v, str | Expr)]
    for text in [text for text in texts if isinstance(text, str)]:
        with contextlib.suppress(patterns.PatternError):
            texts += [name for name, _ in patterns.names(text)]
    # what is in holes is looked through too
    definitions = reached(Glossary.of(tree), texts, lambda written, _: [written, *all_values(written)])
    return [written for written, *_ in definitions.values()]


def _is_flat(hole: Hole) -> bool:
    return not any(isinstance(value, Hole | Ref | Expr) for option in hole.options for value in all_values(option))


def _key(bindings: Mapping[str, Any]) -> Key:
    return frozenset(bindings.items())


def _join_all(parts: Iterable[Ways]) -> Ways:
    ways = _ONE
    for part in parts:
        ways = _join(ways, part)
    return ways


def _join(a: Ways, b: Ways) -> Ways:
    """Both together, but for keys that answer one hole in two ways."""
    if a is _ONE or b is _ONE:
        return b if a is _ONE else a
    total: Ways = {}
    for (one, m), (other, n) in itertools.product(a.items(), b.items()):
        if (key := _union(one, other)) is not None:
            total[key] = total.get(key, 0) + m * n
    return total


def _union(one: Key, other: Key) -> Key | None:
    joined = dict(one)
    for name, answer in other:
        known = joined.setdefault(name, answer)
        if known is _ASKED:
            joined[name] = answer
        elif answer is not _ASKED and known != answer:
            return None
    return frozenset(joined.items())

"""Search spaces: specs with holes, packaged ones by name. A candidate: a space and a value a hole."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.errors import Diagnostic, Path, SearchError, SpecError, did_you_mean, format_path
from blockforge.plugins import YamlFiles
from blockforge.spec import Hole, Spec, SpecLike, fill, from_text, holes, list_specs, load
from blockforge.spec.expressions.tree import ExpressionError
from blockforge.spec.relations.require import violations
from blockforge.spec.yaml.loader import text_of

DEFAULT_SPACE = "hybrid"
SPACES = YamlFiles("blockforge.spaces", "search space", "blockforge.search.spaces")
_NOT_COMPARED = ("name", "about")


def list_spaces() -> list[str]:
    """Names of the packaged spaces."""
    return sorted(SPACES)


def load_space(source: SpecLike = DEFAULT_SPACE, overrides: Mapping[str, Any] | list[str] | None = None) -> Spec:
    """A packaged space by name, or whatever `blockforge.spec.load` takes.

    Raises: SpecError if it cannot be read, SearchError if it has no holes.
    """
    if isinstance(source, str) and source in SPACES:
        spec = load(from_text(text_of(SPACES[source]), SPACES.shown(source)), overrides)
    elif isinstance(source, str) and _is_name(source) and source not in list_specs():
        hint = did_you_mean(source, SPACES, what="spaces") + "; a file needs its .yaml"
        raise SpecError([Diagnostic("space", f"no search space named '{source}'", hint=hint)])
    else:
        spec = load(source, overrides)
    if not holes(spec):
        raise SearchError(
            f"'{spec.name}' has no holes: there is nothing to search\n"
            "  hint: write {$choice: [...]} or {$int: [low, high]} in place of a value; "
            "or build it: blockforge build"
        )
    return spec


def fingerprint(spec: Spec) -> str:
    """Equal for spaces with the same content; name and notes do not count."""
    tree = {k: v for k, v in spec.tree.items() if k not in _NOT_COMPARED}
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def differences(a: Spec, b: Spec) -> list[str]:
    """Paths at which two spaces differ."""
    return list(_differences(a.tree, b.tree, ()))


def _differences(a: Any, b: Any, path: Path) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [k for k in {**a, **b} if path or k not in _NOT_COMPARED]
        pairs = [(k, a.get(k), b.get(k)) for k in keys]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(i, x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        if a != b:
            yield format_path(path)
        return
    for key, x, y in pairs:
        yield from _differences(x, y, (*path, key))


def candidate(space: Spec, answers: Mapping[str, Any], name: str, notes: Mapping[str, Any]) -> Spec:
    """The ordinary spec that `answers` make of `space`; `notes` go into its `about.search`."""
    return load(fill(space, answers, name), {"about.search": dict(notes)})


def values(hole: Hole, at_most: int = 16) -> list[Any]:
    """Values of a hole in order, all if there are few, else evenly spread ones with both ends."""
    if hole.kind == "choice":
        return list(hole.labels)
    if hole.kind == "int":
        low, step, count = int(hole.low), hole.step, number_of_values(hole)
        steps = range(count) if count <= at_most else {round(i * (count - 1) / (at_most - 1)) for i in range(at_most)}
        return [low + i * step for i in sorted(steps)]
    return [hole.low] if hole.low == hole.high else [hole.low, hole.high]


def number_of_values(hole: Hole) -> int:
    """How many values a hole has; a range of floats counts as one."""
    if hole.kind == "choice":
        return len(hole.labels)
    return (int(hole.high) - int(hole.low)) // hole.step + 1 if hole.kind == "int" else 1


def draw(hole: Hole, rng: random.Random) -> Any:
    """A random value of a hole, each as likely as the others."""
    if hole.kind == "choice":
        return rng.choice(hole.labels)
    if hole.kind == "int":
        return int(hole.low) + hole.step * rng.randrange(number_of_values(hole))
    if hole.kind == "log":
        return min(hole.high, max(hole.low, math.exp(rng.uniform(math.log(hole.low), math.log(hole.high)))))
    return rng.uniform(hole.low, hole.high)


def check_requirements(space: Spec, answers: Mapping[str, Any]) -> dict[str, float]:
    """By how much `answers` break each relation of the space's `require`, 0 where it holds: `require.0` -> 0.25.

    For a comparison the distance of its sides, relative to the larger one; what has no measure fails by 1. The same
    relations make the compiler refuse a candidate; these figures are for a sampler to learn from.
    """
    shares = {f"require.{i}": 0.0 for i in range(len(space.lifted.get("require", ())))}
    try:
        return shares | {f"require.{v.index}": v.by for v in violations(space.lifted, answers)}
    except ExpressionError as e:
        return shares | {f"require.{e.index}": 1.0}


def _is_name(text: str) -> bool:
    return not text.endswith((".yaml", ".yml")) and os.sep not in text

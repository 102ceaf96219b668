"""What a stage or a head of a space reads, against what one of a spec does."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from blockforge.search.space.matching import Bindings, Lets, Part, block, in_turn, options
from blockforge.spec.plan import Head, Source, Stage


def reads(
    tree: Mapping[str, Any], own: Mapping[str, Any], reader: Stage | Head, lets: Lets, known: Bindings
) -> Iterator[Bindings]:
    """The sources and the join of a stage or a head that the space writes as `own`; `tree`: the space's."""
    wanted = reader.reads
    if "from" not in own:
        if not wanted.written:
            yield known
        return
    for written, bindings in options(own["from"], lets, known):
        items = written if isinstance(written, list) else [written]
        if not wanted.written or len(items) != len(wanted.sources):
            continue
        pairs = zip(items, wanted.sources, strict=True)
        parts: list[Part] = [functools.partial(_source, tree, item, source, lets) for item, source in pairs]
        if len(items) > 1:
            parts.append(functools.partial(block, own.get("join", "sum"), wanted.join, lets))
        yield from in_turn(parts, bindings)


def _source(tree: Mapping[str, Any], value: Any, target: Source, lets: Lets, known: Bindings) -> Iterator[Bindings]:
    for item, bindings in options(value, lets, known):
        given = item if isinstance(item, dict) else {"from": item}
        for name, bound in options(given["from"], lets, bindings):
            if _number(tree, name) == target.of:
                yield from block(given.get("op", "none"), target.op, lets, bound)


def _number(tree: Mapping[str, Any], name: Any) -> Any:
    """The number of a stage of this name; of another map the name itself."""
    stages = enumerate(tree["stages"])
    return next((i for i, s in stages if isinstance(s, dict) and s.get("name") == name and isinstance(name, str)), name)

"""A tree of plain values that grows one at a time, with the place of each; bounded in size and depth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn

from blockforge.errors import Loc, Path, Report
from blockforge.spec.yaml.events import Mark

MAX_DEPTH = 32
MAX_NODES = 20_000
"""Values in a tree, counted after aliases were replaced by copies."""

Key = str | int


@dataclass(slots=True)
class Anchor:
    """A value with a name. `size` is its number of nodes; 0 while it is being read."""

    path: Path
    loc: Loc
    value: Any
    before: int
    size: int = 0


@dataclass(slots=True)
class Frame:
    """A collection that is being read. Of a mapping, `key` is the one whose value comes next; `wants_key`: first one
    comes."""

    node: Any
    path: Path
    start: Mark
    flow: bool
    anchor: Anchor | None
    wants_key: bool
    key: Key | None = None
    key_loc: Loc | None = None
    key_end: Mark | None = None
    keys: dict[Key, Loc] = field(default_factory=dict)


class Tree:
    """The values read so far. `frames` are the open collections, the innermost last: no recursion."""

    def __init__(self, report: Report) -> None:
        self.report, self.table = report, report.locs.table
        self.root: Any = None
        self.nodes = 0
        self.frames: list[Frame] = []

    def next_path(self) -> Path:
        """The path of the value that comes next."""
        if not self.frames:
            return ()
        frame = self.frames[-1]
        key: Any = len(frame.node) if isinstance(frame.node, list) else frame.key
        return (*frame.path, key)

    def in_flow(self) -> bool:
        """Whether the next value stands inside brackets."""
        return bool(self.frames) and self.frames[-1].flow

    def add(self, path: Path, value: Any, loc: Loc, *, nodes: int = 1) -> None:
        """Put a value at `path`, which is `next_path()`."""
        key_loc = None
        self.count(nodes, path, loc)
        if not self.frames:
            self.root = value
        elif isinstance(node := (frame := self.frames[-1]).node, list):
            node.append(value)
        else:
            node[frame.key], key_loc = value, frame.key_loc
            frame.key, frame.wants_key = None, True
        self.table[path] = (key_loc, loc)

    def add_copy(self, path: Path, anchor: Anchor, loc: Loc) -> None:
        """Copy an anchor's value at `path`, with the anchor's positions. The alias is at `loc`."""
        self.count(anchor.size, path, loc)
        if not isinstance(anchor.value, dict | list):
            return self.add(path, anchor.value, anchor.loc, nodes=0)
        top = anchor.value.copy()
        self.add(path, top, anchor.loc, nodes=0)
        todo = [(top, anchor.path, path)]
        while todo:
            node, source, target = todo.pop()
            self.check_depth(target, loc)
            for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
                self.table[*target, key] = self.table[*source, key]
                if isinstance(child, dict | list):
                    node[key] = child.copy()
                    todo.append((node[key], (*source, key), (*target, key)))
        return None

    def count(self, nodes: int, path: Path, loc: Loc) -> None:
        """Refuse more than `MAX_NODES`."""
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            stop(self.report, "limit", f"more than {MAX_NODES} values", path, loc)

    def check_depth(self, path: Path, loc: Loc) -> None:
        """Refuse a collection at `path` that is nested too deep."""
        if len(path) >= MAX_DEPTH:
            stop(self.report, "limit", f"nested more than {MAX_DEPTH} deep", (), loc)


def stop(report: Report, code: str, message: str, path: Path, loc: Loc, hint: str | None = None) -> NoReturn:
    """Report an error that cannot be read past.

    Raises:
        SpecError: always, with what was found before.
    """
    report.error(code, message, path, loc=loc, hint=hint)
    report.close()
    raise AssertionError("close() raises")

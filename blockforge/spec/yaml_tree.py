"""YAML events -> a tree and its positions, in one pass with an explicit stack: nesting cannot overflow it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from blockforge.errors import Diagnostic, Loc, Locs, Path, Report, Source
from blockforge.spec.scalars import Scalar, ScalarError, resolve, shorten
from blockforge.spec.yaml_errors import explain, question_mark, quoted, span, tag
from blockforge.spec.yaml_events import Mark, events, mark_at

MAX_DEPTH = 32
MAX_NODES = 20_000
"""Values in a tree, counted after aliases were replaced by copies."""
MAX_SCALAR = 10_000
MAX_ERRORS = 50
"""Enough to mend at once; more would only be slow to print."""

_ANCHOR = re.compile(r"&[^\s,\[\]{}]+(?:\s|#[^\n]*)*")


@dataclass(slots=True)
class _Frame:
    """A collection that is being read."""

    node: Any
    path: Path
    start: Mark
    flow: bool
    anchor: _Anchor | None
    key: str | int | None = None
    """Of a mapping: the key whose value comes next."""
    key_loc: Loc | None = None
    key_end: Mark | None = None
    keys: dict[str | int, Loc] = field(default_factory=dict)


@dataclass(slots=True)
class _Anchor:
    """A value with a name. `size` is its number of nodes; 0 while it is being read."""

    path: Path
    loc: Loc
    value: Any
    before: int
    size: int = 0


class TreeBuilder:
    """Takes the events of one document in turn.

    Args:
        text: ends with a line break; its lines are those of `source`.
        inline: take one flow value only, no block collections.
    """

    def __init__(self, text: str, source: Source, inline: bool = False) -> None:
        self.text, self.source, self.inline = text, source, inline
        self.report = Report(Locs())
        self.table = self.report.locs.table
        self.frames: list[_Frame] = []
        self.anchors: dict[str, _Anchor] = {}
        self.tree: Any = None
        self.nodes = self.documents = self.end = 0

    def build(self) -> tuple[Any, Locs]:
        """The tree and its positions.

        Raises:
            SpecError: with every mistake up to the first that cannot be read past.
        """
        handlers = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        try:
            for event in events(self.text):
                if handle := handlers.get(type(event)):
                    handle(event)
        except yaml.YAMLError as e:
            self._broken(explain(e, self.source))
        self.report.close()
        self._check_whole()
        return self.tree, self.report.locs

    def _check_whole(self) -> None:
        if not self.nodes:
            self._empty()
        if self.inline and (rest := self.text[self.end :].strip()):
            loc = self._at(self.text.index(rest, self.end), len(rest.split("\n", 1)[0]))
            self._stop(
                "yaml", "text after the value", (), loc, hint="quote the whole value if this belongs to it"
            )

    def _empty(self) -> NoReturn:
        what = "value" if self.inline else "document"
        self._stop("empty", f"the {what} is empty", (), Loc(self.source, 1, 1))

    def _broken(self, found: Diagnostic) -> None:
        """The text stops being YAML; for `*sam msa*` that says more than the unknown alias at its start."""
        same = [
            d for d in self.report.found if d.loc and found.loc and _start_of(d.loc) == _start_of(found.loc)
        ]
        self.report.found = [d for d in self.report.found if d not in same] + [found]

    def _document(self, event: Any) -> None:
        self.documents += 1
        loc = span(self.source, event.start_mark, event.end_mark)
        if self.documents > 1:
            self._stop("yaml", "a second document starts here", (), loc, hint="keep one document in a file")
        if self.inline and event.explicit:
            self._stop("yaml", "'---' starts a document, not a value", (), loc, hint="quote it if it is text")

    def _scalar(self, event: Any) -> None:
        if self._at_key():
            return self._key(event, self._loc(event))
        start, self.end = event.start_mark.index, event.end_mark.index
        loc = self._missing(event.start_mark) if start == self.end else self._loc(event)
        path = self._path()
        value = self._value(event, path, loc)
        if event.anchor and not event.style and not event.value:
            hint = f"quote text that starts with '&': '&{event.anchor}'"
            self._error("alias", f"the anchor '&{event.anchor}' has no value", path, loc, hint=hint)
        if anchor := self._add(event, path, value, loc):
            anchor.size = 1

    def _key(self, event: Any, loc: Loc) -> None:
        frame, key = self.frames[-1], event.value
        path = (*frame.path, shorten(key))
        if event.anchor:
            whole = span(self.source, event.start_mark, event.end_mark)
            self._error("alias", "a key cannot have an anchor", path, whole, hint=f"remove &{event.anchor}")
        if not event.style and key == "<<":
            hint = "use `extends`, `let`, or an alias for the whole value"
            self._error("merge-key", "the merge key '<<' is not allowed", path, loc, hint=hint)
        elif not isinstance(key := self._value(event, path, loc), str | int) or isinstance(key, bool):
            kind = "null" if key is None else "a boolean" if isinstance(key, bool) else "a float"
            hint = f"quote it: {quoted(event.value)}"
            self._error("key", f"a key must be text or an integer, not {kind}", path, loc, hint=hint)
            key = event.value
        if not str(key).isprintable():
            self._error("key", "a key must be one line of printable text", path, loc)
        if (first := frame.keys.setdefault(key, loc)) is not loc:
            message, related = (
                f"the key {quoted(str(key))} is written twice",
                (("first written here", first),),
            )
            self._error("duplicate-key", message, path, loc, related=related)
        frame.key, frame.key_loc, frame.key_end = key, loc, event.end_mark

    def _open(self, event: Any) -> None:
        """A mapping or a list begins. How long it is on its line, its end will tell."""
        start = self._start(event)
        loc = span(self.source, start, start)
        if self._at_key():
            self._stop(
                "key", "a key must be text or an integer, not a mapping or a list", self._path()[:-1], loc
            )
        is_mapping = type(event) is yaml.MappingStartEvent
        if self.inline and not event.flow_style:
            hint = "write {key: value}" if is_mapping else "write [a, b]"
            self._stop("yaml", "a value stands in one line", (), loc, hint=hint)
        path = self._path()
        node: Any = {} if is_mapping else []
        if event.tag is not None:
            self._refuse(tag(loc, path))
        self._check_depth(path, loc)
        anchor = self._add(event, path, node, loc)
        self.frames.append(_Frame(node, path, start, event.flow_style, anchor))

    def _close(self, event: Any) -> None:
        """A mapping or a list ends: now the length of `[...]` and the size of an anchor are known."""
        frame, self.end = self.frames.pop(), event.end_mark.index
        if frame.flow:
            key_loc, _ = self.table[frame.path]
            self.table[frame.path] = (key_loc, span(self.source, frame.start, event.end_mark))
        if frame.anchor:
            frame.anchor.size = self.nodes - frame.anchor.before

    def _alias(self, event: Any) -> None:
        name, loc = event.anchor, self._loc(event)
        if self._at_key():
            path = self._path()[:-1]
            self._stop(
                "alias", "an alias cannot be a key", path, loc, hint=f"quote it if it is text: '*{name}'"
            )
        path, anchor = self._path(), self.anchors.get(name)
        if anchor is None:
            hint = f"quote text that starts with '*': '*{name}'"
            self._error("alias", f"no anchor '&{name}' above this alias", path, loc, hint=hint)
        elif not anchor.size:
            related = (("the anchor stands here", anchor.loc),)
            self._error(
                "alias", f"the alias '*{name}' stands inside its own anchor", path, loc, related=related
            )
        else:
            self._count(anchor.size, path, loc)
            self._place(path, self._copy(anchor, path, loc), anchor.loc)
            return
        self._place(path, None, loc)

    def _copy(self, anchor: _Anchor, path: Path, loc: Loc) -> Any:
        """The anchor's value once more, with its positions under `path`."""
        if not isinstance(anchor.value, dict | list):
            return anchor.value
        top = anchor.value.copy()
        todo = [(top, anchor.path, path)]
        while todo:
            node, source, target = todo.pop()
            self._check_depth(target, loc)
            for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
                self.table[*target, key] = self.table[*source, key]
                if isinstance(child, dict | list):
                    node[key] = child.copy()
                    todo.append((node[key], (*source, key), (*target, key)))
        return top

    def _add(self, event: Any, path: Path, value: Any, loc: Loc) -> _Anchor | None:
        """Count a value, put it into the tree, and note its anchor if it has one."""
        before = self.nodes
        self._count(1, path, loc)
        self._place(path, value, loc)
        if event.anchor is None:
            return None
        if known := self.anchors.get(event.anchor):
            related = (("first written here", known.loc),)
            self._error("alias", f"the anchor '&{event.anchor}' is written twice", path, loc, related=related)
        self.anchors[event.anchor] = anchor = _Anchor(path, loc, value, before)
        return anchor

    def _place(self, path: Path, value: Any, loc: Loc) -> None:
        key_loc = None
        if not self.frames:
            self.tree = value
        elif isinstance(node := (frame := self.frames[-1]).node, list):
            node.append(value)
        else:
            node[frame.key], key_loc, frame.key = value, frame.key_loc, None
        self.table[path] = (key_loc, loc)

    def _path(self) -> Path:
        """Of the value that comes next."""
        if not self.frames:
            return ()
        frame = self.frames[-1]
        return (*frame.path, len(frame.node) if isinstance(frame.node, list) else frame.key)  # type: ignore[arg-type]

    def _at_key(self) -> bool:
        return bool(self.frames) and self.frames[-1].key is None and isinstance(self.frames[-1].node, dict)

    def _start(self, event: Any) -> Mark:
        """Of a value; behind its anchor, if it has one."""
        start: Mark = event.start_mark
        if self.text.startswith("&", start.index):
            anchor = _ANCHOR.match(self.text, start.index, event.end_mark.index)
            return mark_at(self.text, anchor.end(), start) if anchor else start
        return start

    def _loc(self, event: Any) -> Loc:
        return span(self.source, self._start(event), event.end_mark)

    def _value(self, event: Any, path: Path, loc: Loc) -> Scalar:
        text: str = event.value
        if event.tag is not None or self.source.lines[loc.line - 1].startswith("!", loc.column - 1):
            self._refuse(tag(loc, path))
        if len(text) > MAX_SCALAR:
            self._stop("limit", f"a text of {len(text)} characters; {MAX_SCALAR} are allowed", path, loc)
        if not event.style:
            if "?" in text and self.frames and self.frames[-1].flow:
                self._refuse(question_mark(self.source, loc.line - 1, loc.column - 1))
                self.report.close()
            try:
                return resolve(text)
            except ScalarError as e:
                self._error("number", str(e), path, loc, hint="quote it if it is text")
        return text

    def _missing(self, mark: Mark) -> Loc:
        """Nothing is written where a value belongs. `a:` is null; `{a}` and `{a:1}` are slips."""
        if not self.frames:
            self._empty()
        frame = self.frames[-1]
        if frame.key_loc and frame.key_end:
            colon = self.text.find(":", frame.key_end.index, mark.index)
            if colon < 0:
                self._no_value(str(frame.key), frame.key_loc)
            else:  # libyaml says that the value stands in front of whatever comes next
                mark = mark_at(self.text, colon + 1, frame.key_end)
        return span(self.source, mark, mark)

    def _no_value(self, key: str, loc: Loc) -> None:
        glued = f"write a space after the colon: {shorten(key.replace(':', ': ', 1))}"
        hint = glued if ":" in key else "a mapping is {key: value}, a list is [a, b]"
        self._error("yaml", f"the key {quoted(key)} has no value", self._path(), loc, hint=hint)

    def _check_depth(self, path: Path, loc: Loc) -> None:
        if len(path) >= MAX_DEPTH:
            self._stop("limit", f"nested more than {MAX_DEPTH} deep", (), loc)

    def _count(self, nodes: int, path: Path, loc: Loc) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._stop("limit", f"more than {MAX_NODES} values", path, loc)

    def _error(self, code: str, message: str, path: Path, loc: Loc, **more: Any) -> None:
        self._refuse(Diagnostic(code, message, path, loc, **more))

    def _refuse(self, found: Diagnostic) -> None:
        self.report.found.append(found)
        if len(self.report.found) >= MAX_ERRORS:
            self.report.close()

    def _stop(self, code: str, message: str, path: Path, loc: Loc, **more: Any) -> NoReturn:
        self._error(code, message, path, loc, **more)
        self.report.close()
        raise AssertionError("close() raises")


def _start_of(loc: Loc) -> tuple[int, int]:
    return loc.line, loc.column

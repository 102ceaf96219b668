"""YAML events -> a tree and its positions, refusing what a spec has no use for."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml

from blockforge.errors import Diagnostic, Loc, Locs, Path, Report, Source
from blockforge.spec.yaml import events
from blockforge.spec.yaml.events import Mark, mark_at
from blockforge.spec.yaml.scalars import Scalar, ScalarError, resolve, shorten
from blockforge.spec.yaml.syntax_errors import cut_expression, explain, question_mark, quoted, special_start, tag
from blockforge.spec.yaml.tree import Anchor, Frame, Key, Tree, stop

MAX_SCALAR = 10_000
MAX_ERRORS = 50
"""Enough to mend at once; more would only be slow to print."""

_GLUED_COMMENT = re.compile(r"[|>][-+0-9]*#")
_ANCHOR = re.compile(r"&[^\s,\[\]{}]+(?:\s|#[^\n]*)*")


class TreeBuilder:
    """Takes the events of one document in turn.

    Args:
        text: ends with a line break; its lines are those of `source`.
        inline: take one flow value only, no block collections.
    """

    def __init__(self, text: str, source: Source, inline: bool = False) -> None:
        self.text, self.source, self.inline = text, source, inline
        self.report = Report(Locs())
        self.tree = Tree(self.report)
        self.anchors: dict[str, Anchor] = {}
        self.documents = self.end = 0

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
            parser = events.Parser(self.text)
            while (event := parser.get_event()) is not None:
                if handle := handlers.get(type(event)):
                    handle(event)
                    if len(self.report.found) >= MAX_ERRORS:
                        break
            parser.dispose()
        except yaml.YAMLError as e:  # the text stops being YAML here
            self._broken(explain(e, self.source))
        self.report.close()
        self._check_whole()
        return self.tree.root, self.report.locs

    def _check_whole(self) -> None:
        if not self.tree.nodes:
            self._empty()
        if self.inline and (rest := self.text[self.end :].strip()):
            at = mark_at(self.text, self.text.index(rest, self.end))
            loc = Loc(self.source, at.line + 1, at.column + 1, len(rest.split("\n", 1)[0]))
            self._stop("yaml", "text after the value", (), loc, "quote the whole value if this belongs to it")

    def _broken(self, diagnostic: Diagnostic) -> None:
        """The text stops being YAML; for `*sam msa*` that says more than the unknown alias at its start."""
        self.report.found = [*(d for d in self.report.found if str(d.loc) != str(diagnostic.loc)), diagnostic]

    def _document(self, event: Any) -> None:
        self.documents += 1
        loc = self._span(event.start_mark, event.end_mark)
        if self.documents > 1:
            self._stop("yaml", "a second document starts here", (), loc, "keep one document in a file")
        if self.inline and event.explicit:
            self._stop("yaml", "'---' starts a document, not a value", (), loc, "quote it if it is text")

    def _scalar(self, event: Any) -> None:
        frames = self.tree.frames
        if frames and frames[-1].wants_key:
            return self._key(event, frames[-1])
        start, self.end = event.start_mark, event.end_mark.index
        loc = self._missing(start) if start.index == self.end else self._loc(event)
        path = self.tree.next_path()
        value = self._value(event, path, loc)
        if event.anchor and not event.style and not event.value:
            hint = f"quote text that starts with '&': '&{event.anchor}'"
            self.report.error("alias", f"the anchor '&{event.anchor}' has no value", path, loc=loc, hint=hint)
        anchor = self._anchor(event, path, value, loc)
        self.tree.add(path, value, loc)
        if anchor:
            anchor.size = 1

    def _key(self, event: Any, frame: Frame) -> None:
        loc, path = self._loc(event), (*frame.path, shorten(event.value))
        if event.anchor:
            whole, hint = self._span(event.start_mark, event.end_mark), f"remove &{event.anchor}"
            self.report.error("alias", "a key cannot have an anchor", path, loc=whole, hint=hint)
        key = self._key_value(event, path, loc)
        if (first := frame.keys.setdefault(key, loc)) is not loc:
            message, related = f"the key {quoted(str(key))} is written twice", [("first written here", first)]
            self.report.error("duplicate-key", message, path, loc=loc, related=related)
        frame.key, frame.key_loc, frame.key_end, frame.wants_key = key, loc, event.end_mark, False

    def _key_value(self, event: Any, path: Path, loc: Loc) -> Key:
        text: str = event.value
        if not event.style and text == "<<":
            hint = "use `extends`, `let`, or an alias for the whole value"
            self.report.error("merge-key", "the merge key '<<' is not allowed", path, loc=loc, hint=hint)
            return text
        key = self._value(event, path, loc)
        if not text.isprintable():
            self.report.error("key", "a key must be one line of printable text", path, loc=loc)
        if isinstance(key, str | int) and not isinstance(key, bool):
            return key
        kind = "null" if key is None else "a boolean" if isinstance(key, bool) else "a float"
        message, hint = f"a key must be text or an integer, not {kind}", f"quote it: {quoted(text)}"
        self.report.error("key", message, path, loc=loc, hint=hint)
        return text

    def _open(self, event: Any) -> None:
        """A mapping or a list begins. How long it is on its line, its end will tell."""
        start = self._start(event)
        loc = self._span(start, start)
        frames = self.tree.frames
        if frames and frames[-1].wants_key:
            message = "a key must be text or an integer, not a mapping or a list"
            self._stop("key", message, frames[-1].path, loc)
        node: Any = {} if type(event) is yaml.MappingStartEvent else []
        if self.inline and not event.flow_style:
            kind, hint = ("mapping", "{key: value}") if isinstance(node, dict) else ("list", "[a, b]")
            self._stop("yaml", f"a block {kind} is not one value", (), loc, f"write {hint}")
        path = self.tree.next_path()
        if event.tag is not None:
            self.report.found.append(tag(loc, path))
        self.tree.check_depth(path, loc)
        anchor = self._anchor(event, path, node, loc)
        self.tree.add(path, node, loc)
        frames.append(Frame(node, path, start, event.flow_style, anchor, isinstance(node, dict)))

    def _close(self, event: Any) -> None:
        """A mapping or a list ends: now the length of `[...]` and the size of an anchor are known."""
        frame, self.end = self.tree.frames.pop(), event.end_mark.index
        key_loc, loc = self.tree.table[frame.path]
        if frame.flow:
            loc = self._span(frame.start, event.end_mark)
            self.tree.table[frame.path] = (key_loc, loc)
        if frame.anchor:
            frame.anchor.loc, frame.anchor.size = loc, self.tree.nodes - frame.anchor.before

    def _alias(self, event: Any) -> None:
        name, loc = event.anchor, self._loc(event)
        frames = self.tree.frames
        if frames and frames[-1].wants_key:
            hint = f"quote it if it is text: '*{name}'"
            self._stop("alias", "an alias cannot be a key", frames[-1].path, loc, hint)
        path, anchor = self.tree.next_path(), self.anchors.get(name)
        if anchor and anchor.size:
            return self.tree.add_copy(path, anchor, loc)
        if anchor:
            message, related = (
                f"the alias '*{name}' stands inside its own anchor",
                [("the anchor stands here", anchor.loc)],
            )
            self.report.error("alias", message, path, loc=loc, related=related)
        else:
            hint = f"quote text that starts with '*': '*{name}'"
            self.report.error("alias", f"no anchor '&{name}' above this alias", path, loc=loc, hint=hint)
        self.tree.add(path, None, loc)

    def _anchor(self, event: Any, path: Path, value: Any, loc: Loc) -> Anchor | None:
        if event.anchor is None:
            return None
        if known := self.anchors.get(event.anchor):
            message, related = (
                f"the anchor '&{event.anchor}' is written twice",
                [("first written here", known.loc)],
            )
            self.report.error("alias", message, path, loc=loc, related=related)
        self.anchors[event.anchor] = anchor = Anchor(path, loc, value, self.tree.nodes)
        return anchor

    def _value(self, event: Any, path: Path, loc: Loc) -> Scalar:
        """What a scalar stands for."""
        text: str = event.value
        # libyaml does not report a bare `!` as a tag.
        if event.tag is not None or self.source.lines[loc.line - 1].startswith("!", loc.column - 1):
            self.report.found.append(tag(loc, path))
        if len(text) > MAX_SCALAR:
            self._stop("limit", f"a text of {len(text)} characters; {MAX_SCALAR} are allowed", path, loc)
        if event.style:
            self._check_block_header(event, loc)
            return text
        if "?" in text and self.tree.in_flow():
            self.report.found.append(question_mark(self.source, loc.line - 1, loc.column - 1))
            self.report.close()
        try:
            return resolve(text)
        except ScalarError as e:
            self.report.error("number", str(e), path, loc=loc, hint="quote it if it is text")
            return text

    def _check_block_header(self, event: Any, loc: Loc) -> None:
        """libyaml takes `|#` for the start of a comment; the parser in Python refuses it."""
        if event.style in ("|", ">") and _GLUED_COMMENT.match(self.source.lines[loc.line - 1], loc.column - 1):
            self.report.found.append(special_start(self.source, loc.line - 1, loc.column - 1))
            self.report.close()

    def _missing(self, mark: Mark) -> Loc:
        """Nothing is written where a value belongs. `a:` is null; `{a}` and `{a:1}` are slips."""
        if not self.tree.frames:
            self._empty()
        frame = self.tree.frames[-1]
        if frame.key_loc and frame.key_end:
            colon = self.text.find(":", frame.key_end.index, mark.index)
            if colon < 0:
                self._no_value(str(frame.key), (*frame.path, shorten(str(frame.key))), frame.key_loc)
            else:  # not where libyaml puts it: in front of whatever comes next
                mark = mark_at(self.text, colon + 1, frame.key_end)
        return self._span(mark, mark)

    def _no_value(self, key: str, path: Path, loc: Loc) -> None:
        if cut := cut_expression(self.source, loc.line - 1, loc.column - 1, path[:-1]):
            self.report.found.append(cut)
            self.report.close()
        glued = f"write a space after the colon: {shorten(key.replace(':', ': ', 1))}"
        hint = glued if ":" in key else "a mapping is {key: value}, a list is [a, b]"
        self.report.error("yaml", f"the key {quoted(key)} has no value", path, loc=loc, hint=hint)

    def _start(self, event: Any) -> Mark:
        """Of a value; behind its anchor, if it has one."""
        start: Mark = event.start_mark
        if event.anchor and (anchor := _ANCHOR.match(self.text, start.index, event.end_mark.index)):
            return mark_at(self.text, anchor.end(), start)
        return start

    def _loc(self, event: Any) -> Loc:
        return self._span(self._start(event), event.end_mark)

    def _span(self, start: Mark, end: Mark) -> Loc:
        """From `start` to `end`, or to the end of the line where it ends on a later one."""
        stop = end.column if end.line == start.line else len(self.source.lines[start.line].rstrip())
        return Loc(self.source, start.line + 1, start.column + 1, max(1, stop - start.column))

    def _empty(self) -> NoReturn:
        what = "value" if self.inline else "document"
        self._stop("empty", f"the {what} is empty", (), Loc(self.source, 1, 1))

    def _stop(self, code: str, message: str, path: Path, loc: Loc, hint: str | None = None) -> NoReturn:
        stop(self.report, code, message, path, loc, hint)

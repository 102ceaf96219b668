"""What PyYAML says about broken syntax -> what the user should change.

PyYAML has two parsers (libyaml's and one in Python) that word the same mistake differently. The rules below
match both, so that the message does not depend on how PyYAML was built.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import yaml

from blockforge.errors import Diagnostic, Loc, Path, Source
from blockforge.spec.expressions.brackets import closing
from blockforge.spec.yaml.events import Mark
from blockforge.spec.yaml.scalars import shorten


def quoted(text: str) -> str:
    """`text` as YAML in single quotes."""
    return "'" + shorten(text).replace("'", "''") + "'"


def explain(error: yaml.YAMLError, source: Source) -> Diagnostic:
    """The diagnostic for a syntax error."""
    assert isinstance(error, yaml.MarkedYAMLError), error
    problem = error.problem_mark or error.context_mark
    assert problem is not None, error
    mistake = _Mistake(source, problem, error.context_mark or problem)
    said = f"{error.context or ''}: {error.problem}"
    for pattern, rule in _RULES:
        if re.search(pattern, said):
            return rule(mistake)
    return mistake.at(problem, str(error.problem))


def special_start(source: Source, line: int, column: int) -> Diagnostic:
    """For text that was meant as text and starts with a character that YAML keeps for itself."""
    text = _plain_text(source.lines[line], column)
    loc = Loc(source, line + 1, column + 1, len(text))
    message = f"unquoted text cannot start with {quoted(text[0])}"
    return Diagnostic("yaml", message, loc=loc, hint=f"quote it: {quoted(text)}")


def tag(loc: Loc, path: Path = ()) -> Diagnostic:
    """For `!name`."""
    hint = "remove it; quote text that starts with '!'"
    return Diagnostic("tag", "tags ('!') are not allowed", path, loc, hint)


def question_mark(source: Source, line: int, column: int) -> Diagnostic:
    """For `?` in plain text inside brackets, which versions of YAML and of libyaml read differently."""
    text = _plain_text(source.lines[line], column)
    loc, hint = Loc(source, line + 1, column + 1, len(text)), f"quote it: {quoted(text)}"
    return Diagnostic("yaml", "unquoted text inside brackets cannot hold '?'", loc=loc, hint=hint)


def missing_space(source: Source, line: int, column: int, text: str) -> Diagnostic:
    """For `key:value`."""
    key, _, value = text.partition(":")
    loc = Loc(source, line + 1, column + 1, len(text))
    hint = f"write {shorten(key)}: {shorten(value)}" if value else "write a space after it"
    return Diagnostic("yaml", "a space is missing after ':'", loc=loc, hint=hint)


def cut_expression(source: Source, line: int, column: int, path: Path = ()) -> Diagnostic | None:
    """For an expression in the line that YAML takes to end at `column`, because of a comma or a bracket inside."""
    text = source.lines[line] if line < len(source.lines) else ""
    start = text.rfind("$(", 0, column)
    end = closing(text[start:]) if start >= 0 else None
    if end is None or start + end < column:
        return None
    whole = text[start : start + end + 1]
    quote = "'" if '"' in whole else '"'
    message = "inside { } and [ ], an expression with commas or brackets needs quotes"
    loc, hint = Loc(source, line + 1, start + 1, len(whole)), f"write {quote}{shorten(whole)}{quote}"
    return Diagnostic("expression", message, path, loc, hint)


def bad_escape(source: Source, line: int, column: int) -> Diagnostic:
    """For a backslash in double quotes that starts no escape."""
    escape = _ESCAPE.match(source.lines[line], column)
    assert escape, "the column is that of a backslash"
    hint = r"in double quotes write \\ for a backslash, or use single quotes"
    loc = Loc(source, line + 1, column + 1, len(escape[0]))
    return Diagnostic("yaml", f"{escape[0]} is not a valid escape", loc=loc, hint=hint)


@dataclass(frozen=True, slots=True)
class _Mistake:
    """Where the parser stopped (`problem`), and where that began which it was reading (`context`)."""

    source: Source
    problem: Mark
    context: Mark

    def at(self, mark: Mark, message: str, hint: str | None = None, length: int = 1) -> Diagnostic:
        return Diagnostic("yaml", message, loc=self.loc(mark, length), hint=hint)

    def loc(self, mark: Mark, length: int = 1) -> Loc:
        return Loc(self.source, mark.line + 1, mark.column + 1, max(1, length))

    def line(self, mark: Mark) -> str:
        return self.source.lines[mark.line]

    def before(self) -> str:
        return self.line(self.problem)[: self.problem.column]

    def rest(self, mark: Mark) -> str:
        return self.line(mark)[mark.column :].rstrip()

    def at_end(self) -> bool:
        below = self.source.lines[self.problem.line + 1 :]
        return not self.rest(self.problem) and not any(map(str.strip, below))


_ESCAPE = re.compile(r"\\(?:[xuU][0-9a-fA-F]{0,8}|.?)")
# A line with the space after its colon forgotten; not the start of a URL.
_GLUED = re.compile(r" *(?:- +)*(?P<pair>[\w.$-]+:[^\s:/][^#]*)")


def _plain_text(line: str, column: int) -> str:
    """The plain scalar that someone meant to write at `column`: up to a comment or the end of its item."""
    before = line[:column]
    in_flow = sum(map(before.count, "[{")) > sum(map(before.count, "]}"))
    text = line[column:].split(" #", 1)[0]
    return (re.split(r"[,\]}]", text, maxsplit=1)[0] if in_flow else text).rstrip() or line[column]


def _special_context(m: _Mistake) -> Diagnostic:
    return special_start(m.source, m.context.line, m.context.column)


def _special_problem(m: _Mistake) -> Diagnostic:
    return special_start(m.source, m.problem.line, m.problem.column)


def _tag(m: _Mistake) -> Diagnostic:
    text = _plain_text(m.line(m.context), m.context.column)
    return tag(m.loc(m.context, len(text)))


def _quote(m: _Mistake) -> Diagnostic:
    start = m.rest(m.context)
    hint = f"close it with {start[0]}"
    return m.at(m.context, "this quote is never closed", hint, len(start))


def _escape(m: _Mistake) -> Diagnostic:
    column = m.line(m.problem).rfind("\\", 0, m.problem.column + 1)
    return bad_escape(m.source, m.problem.line, column)


def _question_mark(m: _Mistake) -> Diagnostic:
    return question_mark(m.source, m.context.line, m.context.column)


def _glued_in_flow(m: _Mistake) -> Diagnostic:
    text = m.line(m.context)[m.context.column : m.problem.column]
    return missing_space(m.source, m.context.line, m.context.column, text + ":")


def _flow(kind: str, opening: str, closing: str) -> tuple[str, Callable[[_Mistake], Diagnostic]]:
    def rule(m: _Mistake) -> Diagnostic:
        if m.at_end():
            return m.at(m.context, f"this '{opening}' is never closed", f"close it with '{closing}'")
        if (column := _special_before(m)) is not None:
            return special_start(m.source, m.problem.line, column)
        if cut := cut_expression(m.source, m.problem.line, m.problem.column):
            return cut
        related = ((f"the '{opening}' stands here", m.loc(m.context)),)
        hint = f"close the '{opening}', or put a comma between its items"
        return Diagnostic("yaml", f"expected ',' or '{closing}'", (), m.loc(m.problem), hint, related=related)

    return f"parsing a flow {kind}: ", rule


def _special_before(m: _Mistake) -> int | None:
    """The column of an alias or anchor, with nothing but text behind it: `*sam msa*` was meant as text."""
    before = m.before().rstrip()
    word = before.rsplit(maxsplit=1)[-1].lstrip("[{,") if before else ""
    text_behind = m.rest(m.problem)[:1] not in ("", ":")
    return len(before) - len(word) if text_behind and word[:1] in ("*", "&") else None


def _no_value(m: _Mistake) -> Diagnostic:
    char = m.rest(m.problem)[:1]
    if char in ("]", "}"):
        return m.at(m.problem, f"this '{char}' closes nothing", "remove it, or quote the text")
    hints = {",": "remove the comma, or quote the text", "-": "close the bracket above, or quote the text"}
    return m.at(m.problem, "a value is missing here", hints.get(char))


def _not_a_pair(m: _Mistake) -> Diagnostic:
    if glued := _GLUED.fullmatch(m.line(m.context)):
        return missing_space(m.source, m.context.line, glued.start("pair"), glued["pair"].rstrip())
    hint, length = "write ': ' after the key, or indent the text", len(m.rest(m.context))
    return m.at(m.context, "this line is not 'key: value'", hint, length)


def _no_mapping(m: _Mistake) -> Diagnostic:
    before = m.before()
    if ": " in before:
        hint = "quote text that holds ': '; write a mapping as {key: value} or on lines of its own"
        return m.at(m.problem, "mapping values are not allowed here: a second ': ' in one line", hint)
    above = next((i for i in range(m.problem.line - 1, -1, -1) if m.source.lines[i].strip()), None)
    if above is not None and (glued := _GLUED.fullmatch(m.source.lines[above])):
        return missing_space(m.source, above, glued.start("pair"), glued["pair"].rstrip())
    key = before.strip()
    loc = Loc(m.source, m.problem.line + 1, len(before) - len(before.lstrip()) + 1, max(1, len(key)))
    message = "mapping values are not allowed here: this line continues the value above it"
    return Diagnostic("yaml", message, loc=loc, hint="start all keys of one mapping in the same column")


def _no_list(m: _Mistake) -> Diagnostic:
    hint = "write a list as [a, b] or on lines of its own; quote text that starts with '- '"
    return m.at(m.problem, "a list cannot start in the middle of a line", hint)


def _block_end(m: _Mistake) -> Diagnostic:
    if (column := _special_before(m)) is not None:
        return special_start(m.source, m.problem.line, column)
    last = m.before().rstrip()[-1:]
    if last in ("'", '"'):
        hint = "inside '...' write '' for a quote; quote the whole value once"
        return m.at(m.problem, "text after the closing quote", hint, len(m.rest(m.problem)))
    if last in ("]", "}"):
        hint = "quote the whole value if it is text"
        return m.at(m.problem, "text after the closing bracket", hint, len(m.rest(m.problem)))
    if m.rest(m.problem).startswith(":"):
        return m.at(m.problem, "a key is missing before ':'")
    hint = "start all keys of one mapping, and all '-' of one list, in the same column"
    loc, related = m.loc(m.problem, len(m.rest(m.problem))), (("this block starts here", m.loc(m.context)),)
    message = "this line does not fit the block it stands in"
    return Diagnostic("yaml", message, loc=loc, hint=hint, related=related)


def _outside(m: _Mistake) -> Diagnostic:
    if (column := _special_before(m)) is not None:
        return special_start(m.source, m.problem.line, column)
    hint = "start all keys of one mapping in the same column; put nothing after a closing quote or bracket"
    return m.at(m.problem, "this is not part of the value above it", hint, len(m.rest(m.problem)))


_RULES: tuple[tuple[str, Callable[[_Mistake], Diagnostic]], ...] = (
    ("scanning an (alias|anchor)|scanning a block scalar", _special_context),
    ("cannot start any token|mapping keys are not allowed", _special_problem),
    (r"(scanning|parsing) a tag|tag handle", _tag),
    ("escape|hexa?dec?imal", _escape),
    ("quoted scalar: found unexpected (end of stream|document)", _quote),
    ("found unexpected ':'", _glued_in_flow),
    (r"found unexpected '\?'", _question_mark),
    _flow("sequence", "[", "]"),
    _flow("mapping", "{", "}"),
    ("the node content|expected node content", _no_value),
    ("could not find expected ':'", _not_a_pair),
    ("mapping values are not allowed", _no_mapping),
    ("sequence entries are not allowed", _no_list),
    ("block end>|expected key|'-' indicator", _block_end),
    ("<document start>", _outside),
)

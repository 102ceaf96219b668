"""What the YAML loader refuses, with its exact words."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from blockforge.errors import SpecError
from blockforge.spec.yaml.builder import MAX_ERRORS
from blockforge.spec.yaml.loader import Document, load_text, load_value


def refusal(text: str, load: Callable[[str, str], Document] = load_text) -> str:
    with pytest.raises(SpecError, match=r"error\[") as caught:
        load(text, "s")
    return str(caught.value)


def headlines(text: str, load: Callable[[str, str], Document] = load_text) -> list[str]:
    return [line for line in refusal(text, load).splitlines() if "error[" in line]


# --- refusals ----------------------------------------------------------------------------------------------

REFUSED = [
    ("a: *sam msa*", "s:1:4: error[yaml]: unquoted text cannot start with '*'", "quote it: '*sam msa*'"),
    (
        "- {b: *sam msa*, c: 1}",
        "s:1:7: error[yaml]: unquoted text cannot start with '*'",
        "quote it: '*sam msa*'",
    ),
    ("a: *sam*2", "s:1:4: error[yaml]: unquoted text cannot start with '*'", "quote it: '*sam*2'"),
    ("a: & b", "s:1:4: error[yaml]: unquoted text cannot start with '&'", "quote it: '& b'"),
    ("a: @x # c", "s:1:4: error[yaml]: unquoted text cannot start with '@'", "quote it: '@x'"),
    ("a: [b, %x, c]", "s:1:8: error[yaml]: unquoted text cannot start with '%'", "quote it: '%x'"),
    ("a: `x`", "s:1:4: error[yaml]: unquoted text cannot start with '`'", "quote it: '`x`'"),
    ("a: >sam", "s:1:4: error[yaml]: unquoted text cannot start with '>'", "quote it: '>sam'"),
    ("a: |# b", "s:1:4: error[yaml]: unquoted text cannot start with '|'", "quote it: '|# b'"),
    ("a: ? b", "s:1:4: error[yaml]: unquoted text cannot start with '?'", "quote it: '? b'"),
    ("a: {b: why?}", "s:1:8: error[yaml]: unquoted text inside brackets cannot hold '?'", "quote it: 'why?'"),
    ("a: [1, 2", "s:1:4: error[yaml]: this '[' is never closed", "close it with ']'"),
    ("a: {b: 1\n# c\n", "s:1:4: error[yaml]: this '{' is never closed", "close it with '}'"),
    (
        "a: [1\nb: 2",
        "s:2:2: error[yaml]: expected ',' or ']'",
        "close the '[', or put a comma between its items",
    ),
    ("a: ]", "s:1:4: error[yaml]: this ']' closes nothing", "remove it, or quote the text"),
    ("a: [1,,2]", "s:1:7: error[yaml]: a value is missing here", "remove the comma, or quote the text"),
    ("a: 'x\nb: 1", "s:1:4: error[yaml]: this quote is never closed", "close it with '"),
    ("a: 'it's'", "s:1:8: error[yaml]: text after the closing quote", "inside '...' write '' for a quote"),
    ("a: [1] 2", "s:1:8: error[yaml]: text after the closing bracket", "quote the whole value if it is text"),
    (
        'a: "\\q"',
        "s:1:5: error[yaml]: \\q is not a valid escape",
        "in double quotes write \\\\ for a backslash",
    ),
    ('a: "\\ud800"', "s:1:5: error[yaml]: \\ud800 is not a valid escape", "or use single quotes"),
    ('a: "\\U00110000"', "s:1:5: error[yaml]: \\U00110000 is not a valid escape", "or use single quotes"),
    ('a: "\\UFFFFFFFF"', "s:1:5: error[yaml]: \\UFFFFFFFF is not a valid escape", "or use single quotes"),
    ("a: 1\ndim:64\n", "s:2:1: error[yaml]: a space is missing after ':'", "write dim: 64"),
    ("a:\n  dim:64\n  b: 1", "s:2:3: error[yaml]: a space is missing after ':'", "write dim: 64"),
    ("a: {b:[1]}", "s:1:5: error[yaml]: a space is missing after ':'", "write a space after it"),
    ("a: {op:ssd}", "s:1:5: error[yaml]: the key 'op:ssd' has no value (a.op:ssd)", "the colon: op: ssd"),
    (
        "a: {b}",
        "s:1:5: error[yaml]: the key 'b' has no value (a.b)",
        "a mapping is {key: value}, a list is [a, b]",
    ),
    ("a: 1\nb\nc: 2", "s:2:1: error[yaml]: this line is not 'key: value'", "write ': ' after the key"),
    (
        "a: b: c",
        "s:1:5: error[yaml]: mapping values are not allowed here: a second ': ' in one line",
        "quote text that holds ': '; write a mapping as {key: value} or on lines of its own",
    ),
    (
        "a: 1\n  b: 2",
        "s:2:3: error[yaml]: mapping values are not allowed here: this line continues the value above it",
        "start all keys of one mapping in the same column",
    ),
    (
        "a:\n    b: 1\n  c: 2",
        "s:3:3: error[yaml]: this line does not fit the block it stands in",
        "in the same column",
    ),
    ("a: - b", "s:1:4: error[yaml]: a list cannot start in the middle of a line", "write a list as [a, b]"),
    (": a", "s:1:1: error[yaml]: a key is missing before ':'", None),
    ("  a: 1\nb: 2", "s:2:1: error[yaml]: this is not part of the value above it", "in the same column"),
    ("a: 1\n---\nb: 2", "s:2:1: error[yaml]: a second document starts here", "keep one document in a file"),
    ("%YAML 1.2\n---\na: 1", "s:1:1: error[yaml]: YAML directives ('%') are not allowed", "remove the line"),
    ("%FOO\n---\na: 1", "s:1:1: error[yaml]: YAML directives ('%') are not allowed", "remove the line"),
    ("", "s:1:1: error[empty]: the document is empty", None),
    ("# only a comment\n", "s:1:1: error[empty]: the document is empty", None),
    ("---\n", "s:1:1: error[empty]: the document is empty", None),
    ("a:\tb", "s:1:3: error[tab]: tabs are not allowed", 'write spaces; in double quotes a tab is "\\t"'),
    (
        "\ta: 1\n\tb: 1\n\tc: 1",
        "s:1:1: error[tab]: tabs are not allowed (also in 2 more lines)",
        "write spaces",
    ),
    ("a: '#'\t", "s:1:7: error[tab]: tabs are not allowed", "write spaces"),
    ("a: \x1b[0m", "s:1:4: error[character]: the character U+001B is not allowed", '"\\u001b"'),
    ("a: 1\nb: \u2028", "s:2:4: error[character]: the character U+2028 is not allowed", '"\\u2028"'),
    ("a: \ufeff", "s:1:4: error[character]: the character U+FEFF is not allowed", '"\\ufeff"'),
    ("a: \udc80", "s:1:4: error[character]: the character U+DC80 is not allowed", "hint: remove it"),
    ("a: !!str b", "s:1:4: error[tag]: tags ('!') are not allowed (a)", "quote text that starts with '!'"),
    ("a: !!python/none", "s:1:4: error[tag]: tags ('!') are not allowed (a)", "remove it"),
    ("a: !foo [b]", "s:1:4: error[tag]: tags ('!') are not allowed (a)", "remove it"),
    ("a: ! b", "s:1:4: error[tag]: tags ('!') are not allowed (a)", "remove it"),
    ("a: !x!y b", "s:1:4: error[tag]: tags ('!') are not allowed", "remove it"),
    ("!!set {a: 1}", "s:1:1: error[tag]: tags ('!') are not allowed", "remove it"),
    (
        "a: *b",
        "s:1:4: error[alias]: no anchor '&b' above this alias (a)",
        "quote text that starts with '*': '*b'",
    ),
    ("a: &x [*x]", "s:1:8: error[alias]: the alias '*x' stands inside its own anchor (a[0])", None),
    ("a: &x {b: [*x]}", "s:1:12: error[alias]: the alias '*x' stands inside its own anchor (a.b[0])", None),
    (
        "a: &b",
        "s:1:6: error[alias]: the anchor '&b' has no value (a)",
        "quote text that starts with '&': '&b'",
    ),
    ("[&a 1, &a 2]", "s:1:11: error[alias]: the anchor '&a' is written twice ([1])", None),
    ("&a b: 1", "s:1:1: error[alias]: a key cannot have an anchor (b)", "remove &a"),
    ("a: &k b\n*k : 1", "s:2:1: error[alias]: an alias cannot be a key", "quote it if it is text: '*k'"),
    (
        "<<: {a: 1}",
        "s:1:1: error[merge-key]: the merge key '<<' is not allowed (<<)",
        "use `extends`, `let`, or an alias",
    ),
    (
        "true: 1",
        "s:1:1: error[key]: a key must be text or an integer, not a boolean (true)",
        "quote it: 'true'",
    ),
    ("1.5: 1", "s:1:1: error[key]: a key must be text or an integer, not a float (1.5)", "quote it: '1.5'"),
    ("~: 1", "s:1:1: error[key]: a key must be text or an integer, not null (~)", "quote it: '~'"),
    ("? [a]\n: b", "s:1:3: error[key]: a key must be text or an integer, not a mapping or a list", None),
    ('"a\\nb": 1', "s:1:1: error[key]: a key must be one line of printable text (a\\nb)", None),
    ("a: -.inf", "s:1:4: error[number]: -.inf is not a finite number (a)", "quote it if it is text"),
    ("a: .NaN", "s:1:4: error[number]: .NaN is not a finite number (a)", "quote it if it is text"),
    ("a: 1e999", "s:1:4: error[number]: 1e999 is too large for a number (a)", "quote it if it is text"),
    (
        "a: 9223372036854775808",
        "s:1:4: error[number]: 9223372036854775808 does not fit in 64 bits (a)",
        "quote it",
    ),
    (
        "a: 0xfffffffffffffffff",
        "s:1:4: error[number]: 0xfffffffffffffffff does not fit in 64 bits (a)",
        "quote it",
    ),
    (f"a: {'9' * 5000}", f"s:1:4: error[number]: {'9' * 57}... does not fit in 64 bits (a)", "quote it"),
]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "headline", "hint"), REFUSED, ids=[repr(t[:30]) for t, _, _ in REFUSED])
def test_refusals(text: str, headline: str, hint: str | None) -> None:
    lines = refusal(text).splitlines()
    assert lines[0] == headline
    hints = [line for line in lines if line.startswith("  hint: ")]
    assert hint in hints[-1] if hint else not hints


@pytest.mark.usefixtures("parser")
def test_how_a_refusal_reads() -> None:
    assert refusal("a: 1\nstages:\n  - {dim: 64, layers: *sam msa*, let: {}}\n") == (
        "s:3:23: error[yaml]: unquoted text cannot start with '*'\n"
        "    3 |   - {dim: 64, layers: *sam msa*, let: {}}\n"
        "      |                       ^^^^^^^^^\n"
        "  hint: quote it: '*sam msa*'"
    )


@pytest.mark.usefixtures("parser")
def test_a_duplicate_key_shows_both_places() -> None:
    assert refusal("dim: 1\nb: {c: 2}\ndim: 3\n") == (
        "s:3:1: error[duplicate-key]: the key 'dim' is written twice (dim)\n"
        "    3 | dim: 3\n"
        "      | ^^^\n"
        "  first written here: s:1:1\n"
        "    1 | dim: 1\n"
        "      | ^^^"
    )


@pytest.mark.usefixtures("parser")
def test_an_open_bracket_is_shown_beside_what_follows_it() -> None:
    assert "  the '[' stands here: s:1:4\n    1 | a: [1\n" in refusal("a: [1\nb: 2")


@pytest.mark.usefixtures("parser")
def test_all_errors_together() -> None:
    found = headlines("a: 1\na: .inf\nb: {c: 1, c: 2}\n2: x\n0x2: y\nd: !t 1\ne: *f\ng: [\n")
    assert [line.split(": ")[1] for line in found] == [
        *("error[duplicate-key]", "error[number]", "error[duplicate-key]", "error[duplicate-key]"),
        *("error[tag]", "error[alias]", "error[yaml]"),
    ]
    assert "the key '2' is written twice" in found[3]


@pytest.mark.usefixtures("parser")
def test_text_and_integer_keys_are_two_keys() -> None:
    assert load_text("2: a\n'2': b\n").tree == {2: "a", "2": "b"}


@pytest.mark.usefixtures("parser")
def test_errors_are_capped() -> None:
    assert len(headlines("a: 1\n" * 1000)) == MAX_ERRORS


def test_tabs_may_stand_in_comments() -> None:
    assert load_text("#\ta\na: 1 # b\tc\n").tree == {"a": 1}


def test_names_are_safe_to_print() -> None:
    with pytest.raises(SpecError, match=re.escape(r"a\x1b[0m\udc80:1:1: error[empty]")):
        load_text("", "a\x1b[0m\udc80")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("", "s:1:1: error[empty]: the value is empty"),
        ("  ", "s:1:1: error[empty]: the value is empty"),
        ("# x", "s:1:1: error[empty]: the value is empty"),
        ("*sam msa*", "s:1:1: error[yaml]: unquoted text cannot start with '*'"),
        ("a: 1", "s:1:1: error[yaml]: a block mapping is not one value"),
        ("- 1", "s:1:1: error[yaml]: a block list is not one value"),
        ("a #b", "s:1:3: error[yaml]: text after the value"),
        ("[1]\n\n ...", "s:3:2: error[yaml]: this is not part of the value above it"),
        ("--- 5", "s:1:1: error[yaml]: '---' starts a document, not a value"),
        ("a\n...", "s:2:1: error[yaml]: text after the value"),
        ("{a: 1, a: 2}", "s:1:8: error[duplicate-key]: the key 'a' is written twice (a)"),
        ("[1", "s:1:1: error[yaml]: this '[' is never closed"),
        ("a\udc80", "s:1:2: error[character]: the character U+DC80 is not allowed"),
    ],
)
def test_refused_values(text: str, headline: str) -> None:
    assert headlines(text, load_value)[-1] == headline

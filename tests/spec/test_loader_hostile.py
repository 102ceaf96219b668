"""The YAML loader under hostile texts: bounds, speed, and whatever hypothesis finds."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockforge.errors import Loc, SpecError
from blockforge.spec.yaml import events as yaml_events
from blockforge.spec.yaml.builder import MAX_SCALAR
from blockforge.spec.yaml.loader import MAX_BYTES, Document, load_file, load_text, load_value
from blockforge.spec.yaml.tree import MAX_DEPTH, MAX_NODES

PARSERS = [yaml_events.PythonParser] + ([yaml.CBaseLoader] if yaml.__with_libyaml__ else [])

SPEC = """\
blockforge: 1
about: {paper: "A title: with a colon", reported: {params: 32.0M, top1: 84.3}}
defaults: {norm: {op: layer_norm, eps: 1e-6}}
let: &names
  S: 2       # a comment
blocks:
  sam:
    - {op: sam, num_heads: 4, bias: true, note: on}
    - {op: conv_mlp, mlp_ratio: $mlp_ratio, norm: null}
stages:
  - {dim: 64, depth: 4, layers: sam, let: {mlp_ratio: 8}}
  - {dim: 256, depth: 28, layers: (sam msa)*, let: *names}
"""


def refusal(text: str) -> str:
    with pytest.raises(SpecError, match=r"error\[") as caught:
        load_text(text, "s")
    return str(caught.value)


def headlines(text: str) -> list[str]:
    return [line for line in refusal(text).splitlines() if "error[" in line]


@pytest.mark.parametrize("parser", PARSERS)
def test_bounds_are_exact(parser: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_events, "Parser", parser)
    assert load_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert headlines("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) == [
        f"s:1:{MAX_DEPTH + 1}: error[limit]: nested more than {MAX_DEPTH} deep"
    ]
    deep = f"a: &a {'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}\n"
    assert load_text(f"{deep}b: *a").tree["b"] == load_text(deep).tree["a"]
    assert headlines(f"{deep}b: [*a]") == [f"s:2:5: error[limit]: nested more than {MAX_DEPTH} deep"]
    assert len(load_text(f"a: {'x' * MAX_SCALAR}").tree["a"]) == MAX_SCALAR
    assert headlines(f"a: {'x' * (MAX_SCALAR + 1)}") == [
        "s:1:4: error[limit]: a text of 10001 characters; 10000 are allowed (a)"
    ]
    assert len(load_text(f"[{'1,' * (MAX_NODES - 1)}]").tree) == MAX_NODES - 1
    assert headlines(f"[{'1,' * MAX_NODES}]")[0].startswith("s:1:40000: error[limit]: more than 20000 values")
    half = f"a: &a [{'1,' * (MAX_NODES // 2 - 2)}]\n"
    assert load_text(f"{half}b: *a")
    assert headlines(f"{half}b: *a\nc: 1\nd: 1") == ["s:4:4: error[limit]: more than 20000 values (d)"]


def filled(unit: str, head: str = "", tail: str = "", size: int = MAX_BYTES) -> str:
    return head + unit * ((size - len((head + tail).encode())) // len(unit.encode())) + tail


def numbered(unit: str, head: str = "", size: int = MAX_BYTES) -> str:
    """Every `@` of `unit` becomes another number."""
    count = size // (len(unit) + 4)  # five digits each
    return head + "".join(unit.replace("@", str(i)) for i in range(count))


HOSTILE: dict[str, Callable[[int], str]] = {
    "brackets": lambda n: filled("[", size=n),
    "braces": lambda n: filled("{a: ", size=n),
    "dashes": lambda n: filled("- ", size=n),
    "complex keys": lambda n: filled("? ", size=n),
    "indents": lambda n: "".join(" " * i + "a:\n" for i in range(int((2 * n) ** 0.5) - 4)),
    "bracket pairs": lambda n: filled("[],", head="[", tail="]", size=n),
    "alias bomb": lambda n: (
        filled(" ", head="a0: &a0 [x,x,x,x,x,x,x,x,x]\n", size=n - 4000)
        + "".join(f"\na{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))
    ),
    "aliases": lambda n: filled("- *a\n", head="- &a [1,2]\n", size=n),
    "unknown aliases": lambda n: filled("- *a\n", size=n),
    "anchors": lambda n: numbered("- &a@ x\n", size=n),
    "empty anchors": lambda n: filled("&a ", size=n),
    "keys": lambda n: numbered("k@: 1\n", size=n),
    "keys in one line": lambda n: numbered("k@: , ", head="{", size=n),
    "one key": lambda n: filled("a: 1\n", size=n),
    "long key": lambda n: filled("x", tail=": 1", size=n),
    "long text": lambda n: filled("x", head="a: ", size=n),
    "long quoted text": lambda n: filled("\\n", head='a: "', tail='"', size=n),
    "long block": lambda n: filled("  x\n", head="a: |\n", size=n),
    "many lines of text": lambda n: filled("x\n  ", head="a: ", size=n),
    "stars": lambda n: filled("*", head="a: x ", size=n),
    "stars in brackets": lambda n: filled("* ", head="[*a ", size=n),
    "colons": lambda n: filled("a: ", size=n),
    "quotes": lambda n: filled("'a' ", size=n),
    "tags": lambda n: filled("- !a b\n", size=n),
    "documents": lambda n: filled("---\n", size=n),
    "comments": lambda n: filled("#\n", size=n),
    "spaces": lambda n: filled(" ", size=n),
    "tabs": lambda n: filled("\ta\n", size=n),
    "control characters": lambda n: filled("\x01", size=n),
    "digits": lambda n: filled("9", head="a: ", size=n),
    "large floats": lambda n: filled("- 1e999\n", size=n),
    "mappings": lambda n: filled("{a: 1},", head="[", size=n),
    "empty items": lambda n: filled("-\n", size=n),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_texts_are_refused_at_once(kind: str) -> None:
    text = HOSTILE[kind](MAX_BYTES - 100)
    assert 0.5 * MAX_BYTES < len(text.encode()) <= MAX_BYTES
    assert len(refusal(text)) < 100_000
    assert seconds(lambda: refusal(text)) < 1
    assert refusal(HOSTILE[kind](2**20)) == "error[limit]: s is larger than 256 KiB"
    assert seconds(lambda: refusal(HOSTILE[kind](2**20))) < 1


def seconds(run: Callable[[], object]) -> float:
    """Time on a processor, the lesser of two: beside other work on the same core everything takes longer."""
    times = []
    for _ in range(2):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("kind", ["alias bomb", "anchors", "keys", "brackets", "long text", "tags"])
def test_hostile_texts_take_little_memory(kind: str) -> None:
    text = HOSTILE[kind](MAX_BYTES - 100)
    tracemalloc.start()
    try:
        refusal(text)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_page_loads_in_milliseconds() -> None:
    load_text(SPEC)
    start = time.process_time()
    for _ in range(10):
        load_text(SPEC)
    assert (time.process_time() - start) / 10 < (0.01 if yaml.__with_libyaml__ else 0.1)


PIECES = st.sampled_from(
    [
        *(
            "a",
            "b",
            "1",
            "~",
            "-",
            "?",
            ":",
            ",",
            "[",
            "]",
            "{",
            "}",
            "&",
            "*",
            "!",
            "|",
            ">",
            "'",
            '"',
            "%",
            "@",
        ),
        *(
            "`",
            "#",
            "\\",
            " ",
            "\n",
            "\t",
            "\r",
            "é",
            "😀",
            "\x00",
            "\u2028",
            "\ufeff",
            "''",
            '"\\',
            "\\ud800",
        ),
        *(": ", "- ", "? ", "\n  ", "&a ", "*a", "!!x ", "<<: ", "---\n", "...\n", "|-\n  ", "key: ", " # c"),
        *("0x1f", "1e-3", ".inf", "on"),
    ]
)
soups = st.lists(PIECES, max_size=30).map("".join)
quick = settings(max_examples=300, deadline=None, derandomize=True)


def outcome(load: Callable[[str, str], Document], text: str) -> Document | None:
    try:
        return load(text, "s")
    except SpecError:
        return None


@quick
@given(st.one_of(st.text(), soups), st.sampled_from([load_text, load_value]))
def test_any_text_loads_or_raises_spec_error(text: str, load: Callable[[str, str], Document]) -> None:
    document = outcome(load, text)
    assert document is None or () in document.locs.table


@settings(quick, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(), soups.map(lambda s: s.encode("utf-8", "surrogatepass"))))
def test_any_bytes_load_or_raise_spec_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(data)
    document = outcome(lambda text, name: load_file(path), "")
    assert document is None or () in document.locs.table


@st.composite
def mutations(draw: st.DrawFn) -> str:
    text = SPEC
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 3))
        text = text[:start] + draw(st.one_of(st.just(""), PIECES)) + text[end:]
    return text


@pytest.mark.skipif(len(PARSERS) < 2, reason="PyYAML was built without libyaml")
@quick
@given(st.one_of(mutations(), soups))
def test_both_parsers_read_the_same(text: str) -> None:
    found = []
    for parser in PARSERS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml_events, "Parser", parser)
            document = outcome(load_text, text)
            found.append(document and (document.tree, document.locs.table))
    assert found[0] == found[1]


class Dumper(yaml.SafeDumper):
    """Dumps for YAML 1.2: quotes the texts that 1.2 reads as numbers and 1.1 does not."""


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.0-9][-+.0-9eEoxa-fA-F]*$"), None)

keys = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text().filter(str.isprintable))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from(
        ["on", "1e3", "0o17", "2024-01-01", "null", "~", "12:30", "*a", "- b", "a: b", "#", " x ", "<<", ""]
    ),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


@quick
@given(trees.filter(lambda tree: tree is not None), st.sampled_from([True, False, None]))
def test_dumped_trees_come_back(tree: Any, flow: bool | None) -> None:
    text = yaml.dump(tree, Dumper=Dumper, default_flow_style=flow, sort_keys=False, width=100_000)
    document = load_text(text)
    assert repr(document.tree) == repr(tree)  # 1, 1.0 and True differ
    for path, value in walk(tree, ()):
        key_loc, value_loc = document.locs.table[path]
        assert (key_loc is not None) == (path != () and isinstance(follow(tree, path[:-1]), dict))
        assert key_loc is None or written(key_loc) == path[-1]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert written(value_loc) == value
    assert len(document.locs.table) == sum(1 for _ in walk(tree, ()))


def follow(tree: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def walk(tree: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, tree
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from walk(value, (*path, key))


def written(loc: Loc) -> Any:
    """What the text under the carets says."""
    return load_value(loc.source.lines[loc.line - 1][loc.column - 1 :][: loc.length], "s").tree

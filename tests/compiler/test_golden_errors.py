"""Every mistake in tests/specs/invalid gives exactly the message written at the end of its file.

`# --set path=value` lines of a file are its overrides. After a change of wording run this file as a program:
it writes the messages anew, to be read in the diff.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from blockforge.blocks import registry
from blockforge.compiler import compile_spec
from blockforge.errors import SpecError

KNOWN = """attention batch_norm chain classifier concat conv conv_downsample conv_mlp conv_stem dwconv
    dwconv_downsample gelu global_pool graph group_norm identity layer_norm linear logits mlp
    parallel relu residual sam sum tanh""".split()  # noqa: SIM905
"""The blocks that messages may list, so that a new block changes none of them: some, and what they are made of."""

FOLDER = Path(__file__).parents[1] / "specs" / "invalid"
FILES = sorted(FOLDER.glob("*.yaml"))
MARK = "# --- expected\n"


def message(file: Path) -> str:
    """What compiling the file says."""
    body = file.read_text(encoding="utf-8").partition(MARK)[0]
    overrides = re.findall(r"^# --set (.*)$", body, re.MULTILINE)
    try:
        compile_spec(file.name, overrides or None)
    except SpecError as e:
        return str(e)
    return "no error"


def commented(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.split("\n"))


def make_world_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder of the files, with a few blocks and a small zoo."""
    known = registry.blocks()
    monkeypatch.setattr(registry.BLOCKS, "things", {name: known[name] for name in KNOWN})
    load = importlib.import_module("blockforge.spec.load")
    monkeypatch.setattr(load, "list_specs", lambda: ["smt_b", "smt_s"])
    monkeypatch.chdir(FOLDER)


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    make_world_small(monkeypatch)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
@pytest.mark.usefixtures("small_world")
def test_message(file: Path) -> None:
    _, mark, expected = file.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{file.name} says nothing of what is expected"
    assert commented(message(file)) == expected


def test_every_message_says_where_and_what_to_do() -> None:
    """Each error names a place (for `--set`, the argument), shows its line with a caret, and has a hint."""
    for file in FILES:
        expected = file.read_text(encoding="utf-8").partition(MARK)[2]
        errors = re.split(r"\n(?=# (?:--set )?\S+: error\[)", f"\n{expected}".rstrip())[1:]
        assert errors, file.name
        for error in errors:
            assert re.match(r"# (?:--set )?[^:]+:\d+:\d+: error\[[a-z-]+\]: \S", error), error
            assert re.search(r"^#\s+\| +\^+$", error, re.MULTILINE), error
            assert "\n#   hint: " in error, error


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        make_world_small(patch)
        for path in FILES:
            body = path.read_text(encoding="utf-8").partition(MARK)[0]
            path.write_text(body + MARK + commented(message(path)), encoding="utf-8")

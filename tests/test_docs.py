"""The documentation is true: its code runs, its specs compile, its errors and outputs are the real ones.

The first word after ``` says the language, the second what the test does with the block:

    ```yaml spec          compiles (holes take their first value)
    ```yaml patch         compiles when laid over smt_b
    ```yaml wrong         is refused, with exactly the text of the block behind it
    ```yaml NAME.yaml     is a file beside which the page's code runs; so is ```python NAME.py
    ```python             runs, after the page's earlier Python, in a fresh process
    ```console run        `$ blockforge ...` lines print exactly what stands below them
    anything else         is only read
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import blockforge as bf
from blockforge.compiler import compile_spec
from blockforge.spec import Hole, from_text
from blockforge.spec.patterns import expand

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
PAGES = [REPO / "README.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its page, line, language, second word and text."""

    page: Path
    line: int
    language: str
    role: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(content):
        language, _, role = match["info"].strip().partition(" ")
        found.append(Block(page, content.count("\n", 0, match.start()) + 1, language, role, match["text"]))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def with_role(language: str, *roles: str) -> list[Any]:
    """The blocks of a language and role, as pytest's parameters."""
    return [pytest.param(b, id=b.name) for b in BLOCKS if b.language == language and b.role in roles]


def pages_with_code() -> list[Any]:
    """The pages that have Python to run."""
    named = dict.fromkeys(b.page for b in BLOCKS if b.language == "python" and not b.role)
    return [pytest.param(page, id=page.name) for page in named]


def first_value(hole: Hole) -> Any:
    """An answer to a hole."""
    return hole.labels[0] if hole.kind == "choice" else hole.low


@pytest.mark.parametrize("block", with_role("yaml", "spec"))
def test_specs_in_the_docs_compile(block: Block) -> None:
    assert compile_spec(from_text(block.text, block.name), ask=first_value).params > 0


@pytest.mark.parametrize("block", with_role("yaml", "patch"))
def test_patches_in_the_docs_compile(block: Block) -> None:
    text = f"blockforge: 1\nname: patched\nextends: smt_b\n{block.text}"
    changed = compile_spec(from_text(text, block.name), ask=first_value)
    assert changed.spec.tree != bf.load("smt_b", {"name": "patched"}).tree


@pytest.mark.parametrize("block", with_role("yaml", "wrong"))
def test_errors_in_the_docs_are_real(block: Block) -> None:
    shown = BLOCKS[BLOCKS.index(block) + 1]
    assert shown.language == "text"
    name = shown.text.partition(":")[0]
    with pytest.raises(bf.SpecError, match="hint") as caught:
        compile_spec(from_text(block.text, name))
    assert str(caught.value) == shown.text.rstrip("\n")


@pytest.mark.parametrize("page", pages_with_code())
def test_code_in_the_docs_runs(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    code = "\n".join(b.text for b in blocks_of(page) if b.language == "python" and not b.role)
    run([sys.executable, "-W", "error", "-c", f"import torch; torch.set_num_threads(1)\n{code}"], tmp_path)


@pytest.mark.parametrize("block", with_role("console", "run"))
def test_output_in_the_docs_is_real(block: Block, tmp_path: Path) -> None:
    write_files(block.page, tmp_path)
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        program, *arguments = shlex.split(command)
        assert program == "blockforge", command
        script = Path(sys.executable).with_name(program)
        printed = run([str(script), *arguments], tmp_path, check=False)
        assert without_padding(printed) == without_padding(expected)


def without_padding(text: str) -> str:
    """Tables are padded with spaces on the right, pages are not."""
    return re.sub(r" +$", "", text, flags=re.MULTILINE).rstrip()


def write_files(page: Path, folder: Path) -> None:
    """The page's files, and the specs that its commands name as `specs/...`."""
    for block in blocks_of(page):
        if "." in block.role:
            (folder / block.role).write_text(block.text, encoding="utf-8")
    (folder / "specs").symlink_to(REPO / "specs")


def run(command: list[str], folder: Path, check: bool = True) -> str:
    """What a command prints, both streams together, in a window of 100 columns without colours."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def pattern_rows() -> list[tuple[str, str, str]]:
    """The table of layer patterns in the language's page."""
    text = (DOCS / "language.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \| (\d+) \| `([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize(("pattern", "depth", "layers"), pattern_rows())
def test_pattern_table_is_true(pattern: str, depth: str, layers: str) -> None:
    assert expand(pattern, int(depth)) == tuple(layers.split())


def test_every_block_has_a_known_role() -> None:
    known = {"", "spec", "patch", "wrong", "run"}
    assert not [b.name for b in BLOCKS if b.role not in known and "." not in b.role]


@pytest.mark.parametrize("name", ["blocks", "zoo"])
def test_generated_pages_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module(f"{name}_page")
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == page.page(), "run: make docs"


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name) for p in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_page_is_linked_from_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert not [p.name for p in DOCS.glob("*.md") if p.name != "index.md" and f"({p.name})" not in index]

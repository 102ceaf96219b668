"""The documentation is true: its code runs, its specs compile, its errors and outputs are the real ones.

The first word after ``` says the language, the second what the test does with the block:

    ```yaml spec          compiles (holes take their first value)
    ```yaml patch         compiles when laid over smt_b
    ```yaml recipe        compiles when laid over the page's frame.yaml, and the network keeps every law
    ```yaml wrong         is refused, with exactly the text of the block behind it
    ```yaml NAME.yaml     is a file beside which the page's code runs; so is ```python NAME.py
    ```python             runs, after the page's earlier Python, in a fresh process
    ```console            `$ ...` lines, run one after the other in one folder, print what stands below them, but for
                          times and speeds; a line `...` stands for any lines
    ```console near       the same, and decimals may be a tenth off, as trainings differ between machines
    ```text               is what the block of wrong YAML above it is refused with
    anything else         is only read
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import blockforge as bf
from blockforge.compiler import compile_spec
from blockforge.spec import Hole, from_text
from blockforge.spec.holes import fill
from blockforge.spec.patterns import expand
from blockforge.testing import check_spec

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
sys.path.insert(0, str(DOCS))

from console import FENCE, Block, blocks_of, printed_by, run_block, same, write_files  # noqa: E402

PAGES = [REPO / "README.md", *sorted(DOCS.glob("*.md"))]
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


@pytest.mark.parametrize("block", with_role("yaml", "recipe"))
def test_recipes_in_the_docs_keep_their_costs(block: Block, tmp_path: Path) -> None:
    (frame,) = (b for b in blocks_of(block.page) if b.role == "frame.yaml")
    (tmp_path / "frame.yaml").write_text(frame.text, encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"blockforge: 1\nname: recipe\nextends: frame.yaml\n{block.text}", encoding="utf-8")
    arch = compile_spec(recipe, ask=first_value)
    assert arch.hash != compile_spec(tmp_path / "frame.yaml").hash
    written_out = bf.expand(fill(bf.load(recipe), arch.plan.answers))
    assert compile_spec(from_text(written_out)).hash == arch.hash
    check_spec(arch)


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
    printed_by([sys.executable, "-W", "error", "-c", f"import torch; torch.set_num_threads(1)\n{code}"], tmp_path)


def pages_with_output() -> list[Any]:
    """The pages that show what commands print."""
    named = dict.fromkeys(b.page for b in BLOCKS if b.language == "console")
    return [pytest.param(page, id=page.name) for page in named]


@pytest.mark.parametrize("page", pages_with_output())
def test_output_in_the_docs_is_real(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    stale = []
    for block in (b for b in blocks_of(page) if b.language == "console"):
        for command, expected, printed in run_block(block, tmp_path):
            if not same(printed, expected, near=block.role == "near"):
                stale.append(f"{block.name}: $ {command}\n{printed}")
    assert not stale, "\n".join(["run: make docs", *stale])


def test_no_output_stands_where_no_test_looks() -> None:
    """What a command prints is a console block; other text is what the wrong YAML above it is refused with."""
    texts = [b for b in BLOCKS if b.language in ("text", "") and b.page.name != "CHANGELOG.md"]
    assert not [b.name for b in texts if BLOCKS[BLOCKS.index(b) - 1].role != "wrong"]


def test_stale_output_is_noticed() -> None:
    assert same("in 12 ms on 4 threads, 3.5 images/s  \n", "in 345.6 ms on 1 threads, 20 images/s\n", near=False)
    assert not same("top-1 97.00\n", "top-1 98.00\n", near=False)
    assert same("top-1 97.00\n", "top-1 98.00\n", near=True)
    assert not same("top-1 97.00\n", "top-1 50.00\n", near=True)
    assert same("a\nb\nc\nd\n", "a\n...\nd\n", near=False)
    assert not same("a\nb\n", "a\nb\nc\n", near=False)


def pattern_rows() -> list[tuple[str, str, str]]:
    """The table of layer patterns in the language's page."""
    text = (DOCS / "language.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([^`]+)` \| (\d+) \| `([^`]+)`", text, re.MULTILINE)


@pytest.mark.parametrize(("pattern", "depth", "layers"), pattern_rows())
def test_pattern_table_is_true(pattern: str, depth: str, layers: str) -> None:
    assert expand(pattern, int(depth)) == tuple(layers.split())


def test_every_block_has_a_known_role() -> None:
    known = {"", "spec", "patch", "recipe", "wrong", "near"}
    assert not [b.name for b in BLOCKS if b.role not in known and "." not in b.role]


@pytest.mark.parametrize("name", ["blocks", "zoo"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    page = importlib.import_module(f"{name}_page")
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == page.page(), "run: make docs"


def test_pictures_of_blocks_are_up_to_date() -> None:
    pictures = importlib.import_module("block_pictures")
    made = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / pictures.FOLDER).iterdir()}
    assert made == pictures.pictures(), "run: make docs"


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

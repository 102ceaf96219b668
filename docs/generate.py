"""Write what is made from the code: the pages of blocks and of the zoo, the JSON Schema beside the zoo, and the output
of the commands in all pages.

`python docs/generate.py`, or `make docs`; `python docs/generate.py blocks.md schema.json` does these alone.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import block_pictures
import blocks_page
import console
import zoo_page

from blockforge.schema import schema_text

FOLDER = Path(__file__).parent
MADE = {"blocks.md": blocks_page.page, "zoo.md": zoo_page.page, "schema.json": schema_text}


def draw_blocks() -> None:
    """Write the pictures of blocks, and remove those of blocks that are gone."""
    folder = FOLDER / block_pictures.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    made = block_pictures.pictures()
    for old in folder.glob("*.svg"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")


def main(names: list[str]) -> None:
    """Write the files that are named, or all."""
    files = [FOLDER.parent / "specs" / "schema.json", FOLDER.parent / "README.md", *sorted(FOLDER.glob("*.md"))]
    pages = {p.name: p for p in files}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names or pages:
            if name == "blocks.md":
                draw_blocks()
            if name in MADE:
                pages[name].write_text(MADE[name](), encoding="utf-8")
            elif any(block.language == "console" for block in console.blocks_of(pages[name])):
                console.rewrite(pages[name], Path(scratch))
            else:
                continue
            print(f"wrote {pages[name]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

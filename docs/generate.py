"""Write the pages that are made from code and specs: `python docs/generate.py`, or `make docs`."""

from __future__ import annotations

from pathlib import Path

import blocks_page
import zoo_page

FOLDER = Path(__file__).parent
PAGES = {"blocks.md": blocks_page.page, "zoo.md": zoo_page.page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
        print(f"wrote {FOLDER / name}")

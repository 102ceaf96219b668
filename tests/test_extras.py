"""Commands that need an extra say which one, and every extra that they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from blockforge.extras import MissingExtraError, need

ROOT = Path(__file__).parent.parent


def test_what_is_installed_passes() -> None:
    need("train", "json", "torch")


def test_what_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtraError, match=r"needs no_such_library, nor_this\n.*pip install 'blockforge\[train\]'"
    ):
        need("train", "json", "no_such_library", "nor_this")


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [f for folder in ("blockforge", "kernels", "search") for f in (ROOT / folder).rglob("*.py")]
    named = {name for f in files for name in re.findall(r'\bneed\(\s*"([\w-]+)"', f.read_text())}
    assert named <= set(extras)

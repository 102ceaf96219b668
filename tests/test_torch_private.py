"""Names of torch that begin with an underscore stand in one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import blockforge
from blockforge import kernels, search

FENCED = Path(blockforge.__file__).parent / "torch_private.py"
HOMES = (FENCED.parent, *(Path(package.__path__[0]) for package in (kernels, search)))
OF_OBJECTS = {
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
    "_non_persistent_buffers_set", "_cdata", "_dynamo_marked_constant",
}  # fmt: skip
"""Attributes that torch gives modules, storages and functions."""


def private_names(source: str) -> Iterator[str]:
    """What a file uses of torch by a name that begins with an underscore."""
    tree, of_torch = ast.parse(source), {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "torch":
            of_torch |= {alias.asname or alias.name for alias in node.names}
            yield from (f"{node.module}.{a.name}" for a in node.names if is_private(f"{node.module}.{a.name}"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in OF_OBJECTS:
            yield node.attr
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            path = ast.unparse(node.value)
            if path.partition(".")[0] in of_torch and "(" not in path:
                yield f"{path}.{node.attr}"


def is_private(path: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in path.split("."))


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.name)
def test_private_names_of_torch_are_fenced(home: Path) -> None:
    files = [f for f in sorted(home.rglob("*.py")) if f != FENCED]
    used = {str(f.relative_to(home)): names for f in files if (names := list(private_names(f.read_text("utf-8"))))}
    assert files
    assert not used, f"name them in {FENCED.name}"


def test_the_fenced_file_uses_what_it_fences() -> None:
    assert len(list(private_names(FENCED.read_text("utf-8")))) > 15
    source = "from torch.nn import functional as F\nF._x(1)\ntorch.ops.a._b\ny._c"
    assert set(private_names(source)) == {"F._x", "torch.ops.a._b"}


def test_the_versions_that_were_tried_are_those_that_are_pinned() -> None:
    pins = (Path(__file__).parents[1] / "constraints.txt").read_text("utf-8").splitlines()
    pinned = next(line.partition("==")[2] for line in pins if line.startswith("torch=="))
    assert f"torch {pinned.rpartition('.')[0]} " in FENCED.read_text("utf-8")

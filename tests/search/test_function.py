"""`bf.search` is a plain function, and `blockforge.search` a package, in whatever order they are imported."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import types

import pytest

import blockforge as bf

CHECK = """
import types
import blockforge as bf
assert isinstance(bf.search, types.FunctionType), bf.search
assert bf.search.load_space("tiny").name == "tiny"
import blockforge.search.study.journal
assert blockforge.search.study.journal.JOURNAL == "study.journal"
import sys
assert isinstance(sys.modules["blockforge.search"], types.ModuleType)
from blockforge.search import open_result, search
from blockforge import search as again
assert search is again is bf.search is bf.search.search
"""


@pytest.mark.parametrize(
    "first",
    [
        "import blockforge as bf; bf.search",
        "import blockforge.search",
        "import blockforge.search.space.load",
        "import blockforge.search as package; assert package.list_spaces()",
        "from blockforge.cli import main; main(['search', '--help'])",
    ],
)
def test_every_order_of_imports_gives_the_function(first: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"{first}\n{CHECK}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_editors_see_its_signature() -> None:
    parameters = inspect.signature(bf.search).parameters
    assert list(parameters)[:3] == ["space", "around", "budget"]
    assert parameters["config"].default is None
    assert (bf.search.__doc__ or "").startswith("Fill the holes of a space")
    assert "search" in dir(bf)
    assert pickle.loads(pickle.dumps(bf.search)) is bf.search


def test_it_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bf, "search", lambda: 3)
        assert bf.search() == 3  # type: ignore[call-arg]
    assert isinstance(bf.search, types.FunctionType)
    monkeypatch.setattr("blockforge.search.study.journal.JOURNAL", "other")

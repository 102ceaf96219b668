"""What a user reads whose environment lacks the other library."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import blockforge as bf
from blockforge.extras import MissingExtraError

SPEC = Path(__file__).parents[1] / "specs" / "sam.yaml"
MODULES = {
    "blockforge.timm": ("timm", r"this needs timm\n  hint: pip install 'blockforge\[timm\]'"),
    "blockforge.integrations.hub": (
        "huggingface_hub",
        r"this needs huggingface_hub\n  hint: pip install 'blockforge\[hub\]'",
    ),
    "blockforge.integrations.mmengine": (
        "mmengine",
        r"this needs mmengine .*\n  hint: pip install 'blockforge\[mmengine\]'",
    ),
}


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """One of our modules, not yet imported, in an environment without the library that it is for."""
    module: str = request.param
    library = MODULES[module][0]
    for name in [n for n in sys.modules if n.startswith((f"{library}.", f"{module}.")) or n in (library, module)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("from_pretrained", "push_to_hub", "save_pretrained"):  # the front door keeps what was used before
        monkeypatch.delitem(vars(bf), name, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr("blockforge.extras.find_spec", lambda name: None)
    return module


@pytest.mark.parametrize("absent", MODULES, indirect=True)
def test_missing_library(absent: str) -> None:
    with pytest.raises(MissingExtraError, match=MODULES[absent][1]):
        importlib.import_module(absent)


@pytest.mark.parametrize("absent", ["blockforge.integrations.hub"], indirect=True)
def test_models_work_without_the_hub(absent: str, tmp_path: Path) -> None:
    model = bf.build(SPEC)
    bf.save_model(model, tmp_path)
    with pytest.raises(MissingExtraError, match="this needs huggingface_hub"):
        model.save_pretrained(tmp_path)
    with pytest.raises(MissingExtraError, match="this needs huggingface_hub"):
        model.from_pretrained(tmp_path)

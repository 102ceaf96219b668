"""One thread, a fixed seed a test and output of one width: results depend neither on the machine nor on the order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "experiments"))
torch.set_num_threads(1)
settings.register_profile(
    "blockforge",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("blockforge")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs; children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_for_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.delenv("COLUMNS", raising=False)  # some libraries set it


@pytest.fixture(scope="session")
def tiny() -> Callable[..., str]:
    """`tiny(("old", "new"), ...)`: the text of a small valid spec, with parts of it replaced."""
    file = Path(__file__).parent / "specs" / "invalid" / "parts" / "tiny.yaml"
    text = file.read_text(encoding="utf-8")

    def changed(*changes: tuple[str, str]) -> str:
        result = text
        for old, new in changes:
            assert old in result, old
            result = result.replace(old, new, 1)
        return result

    return changed

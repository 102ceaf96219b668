"""The experiment "as good and cheaper": what it trains for longer, and that it goes on. Nothing is trained here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cheaper
import pytest


def test_what_is_missing_is_trained_in_pairs_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(arch: Any, *_: object, out: Path, seed: int, **__: object) -> Any:
        out.mkdir(parents=True)
        return SimpleNamespace(signal=None, model=(arch.hash, seed))

    monkeypatch.setattr(cheaper, "open_data", lambda name: SimpleNamespace(classes=range(10)))
    monkeypatch.setattr(cheaper, "fit", fit)
    monkeypatch.setattr(cheaper, "evaluate", lambda *_, **__: SimpleNamespace(top1=90.0))
    found = {role: SimpleNamespace(hash=role[0] * 8) for role in ("winner", "seed", "random")}
    first = list(cheaper.train_longer("net", found, "d", 2, 1, tmp_path))
    assert [row.role for row in first] == ["winner", "seed", "random"]
    (tmp_path / "longer" / "wwwwwwww-1").mkdir()
    second = [(row.role, row.seed) for row in cheaper.train_longer("net", found, "d", 2, 3, tmp_path)]
    numbers = (cheaper.FIRST + 1, cheaper.FIRST + 2)
    assert second == [*((role, n) for n in numbers for role in ("winner", "seed")), *(("random", n) for n in numbers)]
    assert not list(cheaper.train_longer("net", found, "d", 2, 3, tmp_path))

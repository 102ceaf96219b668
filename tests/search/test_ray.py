"""Workers as tasks of a local Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.search import search
from blockforge.search.study.records import EVALUATED

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"

pytest.importorskip("ray", reason="ray is not installed")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_workers_on_a_local_ray(tmp_path: Path) -> None:
    found = search(
        TINY,
        trials=20,
        workers=2,
        objective="depth",
        out=tmp_path,
        sampler="random",
        launcher="ray",
        budget="900KFLOPs",
    )
    done = [t.hash for t in found.trials if t.state in EVALUATED]
    assert len(done) == len(set(done))
    assert 20 <= len(done) <= 21
    assert found.stopped is None

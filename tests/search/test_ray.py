"""Workers as tasks of a local Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockforge.errors import SearchError
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tasks_ask_the_cluster_for_gpus(tmp_path: Path) -> None:
    """Ray deals GPUs that are only declared, and names them to its tasks."""
    import ray

    score = f"{Path(__file__).with_name('test_devices.py')}:score"
    options = {"trials": 20, "objective": score, "sampler": "random", "launcher": "ray"}
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        found = search(TINY, workers=2, out=tmp_path / "a", **options)  # type: ignore[arg-type]
        with pytest.raises(SearchError, match="2 workers with 2 GPUs each need 4; the Ray cluster has 2"):
            search(TINY, workers=2, gpus_per_worker=2, out=tmp_path / "b", **options)  # type: ignore[arg-type]
    finally:
        ray.shutdown()
    assert {value for t in found.trials if t.state in EVALUATED for value in t.values} == {0.0, 1.0}

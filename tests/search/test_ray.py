"""Workers as tasks of a local Ray."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from blockforge.errors import SearchError
from blockforge.search import search
from blockforge.search.objectives import registry
from blockforge.search.registry import carried
from blockforge.search.study.records import EVALUATED
from blockforge.search.workers import supervisor
from blockforge.search.workers.ray_tasks import check_nodes

TINY = Path(__file__).parent.parent / "data" / "search" / "tiny.yaml"

ray = pytest.importorskip("ray", reason="ray is not installed")

CODE = """
import helper_of_nodes

def score(arch, trial):
    import os, time
    import ray
    time.sleep(0.3)
    node = ray.get_runtime_context().get_node_id()
    with open(os.environ["SEEN_ON"], "a") as seen:
        seen.write(f"{node} {__file__}\\n")
    return helper_of_nodes.depth(arch)
"""


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_survives_the_loss_of_a_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes with a declared resource. Tasks spread over both, with the user's code and environment; one node goes
    in the middle: its worker waits for a slot that does not come, which is said, and no candidate is lost."""
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(supervisor, "PATIENCE", 2.0)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "scored_on_nodes.py").write_text(CODE)
    (tmp_path / "code" / "helper_of_nodes.py").write_text("def depth(arch): return float(arch.depth)\n")
    monkeypatch.chdir(tmp_path / "code")
    seen = tmp_path / "seen"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 1, "resources": {"slot": 1}})
    lost = cluster.add_node(num_cpus=2, num_gpus=1, resources={"slot": 1})
    ray.init(address=cluster.address, log_to_driver=False)
    nodes = {node["NodeID"] for node in ray.nodes()}

    def lose() -> None:
        end = time.monotonic() + 90
        while time.monotonic() < end and not (seen.exists() and len(set(_nodes(seen))) == 2):
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)

    losing = threading.Thread(target=lose)
    losing.start()
    try:
        found = search(
            TINY, trials=24, workers=2, objective="scored_on_nodes.py:score", out=tmp_path / "run", sampler="random",
            launcher="ray", gpus_per_worker=1, resources={"slot": 1}, lease=8,
            runtime_env={"env_vars": {"SEEN_ON": str(seen)}},
        )  # fmt: skip
    finally:
        losing.join()
        ray.shutdown()
        cluster.shutdown()
    assert set(_nodes(seen)) == nodes
    assert str(tmp_path / "code") not in seen.read_text()
    done = [t.hash for t in found.trials if t.state in EVALUATED]
    assert len(done) == len(set(done))
    assert 24 <= len(done) <= 25
    retried = {t.retry_of for t in found.trials}
    assert all(t.number in retried for t in found.trials if t.state == "interrupted")
    text = r"1 of 2 workers wait for a slot: each asks for 1 CPU, 1 GPU, 1 slot; free in the Ray cluster: \d CPU\n"
    assert re.search(text, capsys.readouterr().err)


def _nodes(seen: Path) -> list[str]:
    return [line.split()[0] for line in seen.read_text().splitlines()]


def test_what_no_node_can_hold_is_told_at_once() -> None:
    nodes = [{"CPU": 4.0, "GPU": 2.0, "memory": 1e9}, {"CPU": 8.0}]
    check_nodes({"CPU": 1, "GPU": 2.0}, nodes)
    check_nodes({"CPU": 8, "GPU": 0.0}, nodes)
    with pytest.raises(
        SearchError, match=r"each asks for 8 CPU, 1 GPU; the nodes have 4 CPU, 2 GPU; 8 CPU\n  hint: --gpus"
    ):
        check_nodes({"CPU": 8, "GPU": 1.0}, nodes)
    with pytest.raises(SearchError, match="each asks for 1 CPU, 1 tpu"):
        check_nodes({"CPU": 1, "tpu": 1.0}, nodes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpus_per_worker": 2}, "--cpus-per-worker is for Ray tasks\n  hint: --launcher ray"),
        ({"resources": {"slot": 1}}, "--resource is for Ray tasks"),
        ({"runtime_env": {"pip": ["timm"]}}, "--runtime-env is for Ray tasks"),
    ],
)
def test_what_only_ray_gives(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search(TINY, trials=1, **settings)


def test_code_that_is_carried(tmp_path: Path) -> None:
    (tmp_path / "carried_one.py").write_text("import carried_two\ndef score(arch): return carried_two.VALUE\n")
    (tmp_path / "carried_two.py").write_text("VALUE = 7\n")
    name = str(tmp_path / "carried_one.py")
    code = carried.read([name, name])
    assert {file: set(files) for file, files in code.items()} == {name: {"carried_one.py", "carried_two.py"}}
    (tmp_path / "carried_one.py").unlink()
    (tmp_path / "carried_two.py").unlink()
    carried.unpack(code)
    assert carried.found(name).parent != tmp_path
    assert registry.make(f"{name}:score")(None) == 7  # type: ignore[arg-type]
    carried.unpack(code)
    with pytest.raises(SearchError, match="cannot be sent to workers"):
        carried.read([str(tmp_path / "nothing.py")])

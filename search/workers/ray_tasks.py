"""Workers as tasks of a Ray cluster: what each asks for, what it carries to its node, and what it waits for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockforge.errors import BlockforgeError, SearchError
from blockforge.extras import need
from blockforge.search.registry import carried
from blockforge.search.study.config import WorkersConfig
from blockforge.search.workers.devices import ray_share
from blockforge.search.workers.launcher import TAIL, Handle, Starter, WorkerSettings


@contextlib.contextmanager
def ray_tasks(settings: WorkerSettings) -> Iterator[Starter]:
    """What starts workers on a Ray cluster, spread over its nodes.

    Raises: SearchError if none answers, or no node can ever hold a worker.
    """
    need("ray", "ray")
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    workers, ours = settings.workers, not ray.is_initialized()
    address = workers.address
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False if address is None else None)
        except (ConnectionError, ValueError) as e:
            raise SearchError(f"no Ray cluster answers at {address}: {e}") from None
    try:
        share = ray_share(workers.number, ray.cluster_resources().get("GPU", 0), workers.gpus_per_worker)
        asked = {"CPU": workers.cpus_per_worker or 1.0, "GPU": share, **workers.resources}
        check_nodes(asked, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        code = carried.read([*settings.plugins, *settings.code])
        options: dict[str, Any] = {"num_cpus": asked["CPU"], "num_gpus": share, "resources": workers.resources}
        if workers.runtime_env:
            options["runtime_env"] = _environment(ray, workers)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        made: Any = ray.remote(_Begun)
        begun = made.options(num_cpus=0, scheduling_strategy=here).remote()
        work = ray.remote(max_retries=0, scheduling_strategy="SPREAD", **options)(_work)

        def start(stream: int, name: str) -> Handle:
            return _RayTask(ray, name, work.remote(settings.arguments(stream, name), code, begun), asked, begun)

        yield start
    finally:
        if ours:
            ray.shutdown()


class _Begun:
    """Knows which workers have a slot; on the node of the search, which is not lost."""

    def __init__(self) -> None:
        self.workers: set[str] = set()

    def tell(self, worker: str) -> None:
        self.workers.add(worker)

    def has(self, worker: str) -> bool:
        return worker in self.workers


def _work(arguments: dict[str, Any], code: Mapping[str, Mapping[str, str]], begun: Any) -> Any:
    """A worker, on its node; the user's code is what the search has read of it."""
    begun.tell.remote(arguments["worker"])
    from blockforge.search.registry import carried
    from blockforge.search.workers import worker

    carried.unpack(code)
    plugins = [str(carried.found(name)) for name in arguments["plugins"]]
    return worker.work(**{**arguments, "plugins": plugins})


def _environment(ray: Any, workers: WorkersConfig) -> Any:
    """What tasks run in. Raises: SearchError."""
    try:
        return ray.runtime_env.RuntimeEnv(**workers.runtime_env)
    except (TypeError, ValueError) as e:
        first = str(e).partition("\n")[0]
        raise SearchError(
            f"Ray takes no such runtime_env: {first}\n  hint: as in {{pip: [timm], env_vars: {{A: 'b'}}}}"
        ) from None


def check_nodes(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise SearchError where no node has what one worker asks for: it would wait for ever."""
    if any(all(node.get(name, 0) >= amount for name, amount in asked.items()) for node in nodes):
        return
    wanted = {name for name, amount in asked.items() if amount}
    have = "; ".join(listed({n: v for n, v in node.items() if n in wanted}) for node in nodes) or "nothing"
    text = f"no node of the Ray cluster can hold a worker: each asks for {listed(asked)}; the nodes have {have}"
    raise SearchError(f"{text}\n  hint: --gpus-per-worker, --cpus-per-worker and --resource say what each asks for")


def listed(resources: Mapping[str, float]) -> str:
    """`1 CPU, 0.5 GPU`."""
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount) or "nothing"


@dataclass
class _RayTask:
    """A worker that is a Ray task."""

    ray: Any
    worker: str
    task: Any
    asked: Mapping[str, float]
    begun: Any
    error: str = ""
    mistake: str | None = None

    def waits_for(self) -> str | None:
        if self.ray.get(self.begun.has.remote(self.worker)):
            return None
        free = {n: v for n, v in self.ray.available_resources().items() if self.asked.get(n)}
        return f"each asks for {listed(self.asked)}; free in the Ray cluster: {listed(free)}"

    def ended(self) -> str | None:
        ready, _ = self.ray.wait([self.task], timeout=0)
        if not ready:
            return None
        try:
            self.ray.get(self.task)
        except self.ray.exceptions.RayTaskError as e:
            self.mistake = str(e.cause) if isinstance(e.cause, BlockforgeError) else None
            self.error = str(e)
            return f"its Ray task failed: {type(e.cause).__name__}"
        except self.ray.exceptions.RuntimeEnvSetupError as e:
            self.mistake = f"a node could not set up runtime_env: {str(e).strip().splitlines()[-1][:300]}"
            return self.mistake
        except self.ray.exceptions.RayError as e:
            self.error = str(e)
            return f"its Ray worker died: {type(e).__name__}"
        return ""

    def trace(self) -> str:
        return self.error[-TAIL:]

    def stop(self) -> None:
        self.ray.cancel(self.task, force=False)

    def kill(self) -> None:
        self.ray.cancel(self.task, force=True)

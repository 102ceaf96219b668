"""How long each node of a network's graph takes in the built model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.measure.profile import Setting, make_step, synchronize

_WARM_UP = 2


@dataclass(frozen=True)
class NodeTime:
    """A node of the graph: the median of its forward calls, its share of all nodes' time, and its MACs a second."""

    name: str
    op: str
    ms: float
    share: float
    macs: int

    @property
    def gmacs_per_second(self) -> float:
        """0 where a node has no multiply-adds."""
        return self.macs / self.ms / 1e6 if self.ms else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "gmacs_per_second": self.gmacs_per_second}


def node_times(model: Backbone, setting: Setting, device: str = "cpu", runs: int = 10) -> list[NodeTime]:
    """Time the forward pass of every node, in the graph's order.

    Runs eagerly, whatever the setting says: a compiled graph has no borders between nodes. A branch's norm,
    scale and residual sum count to it. Sums of long skips have no module of their own and are left out.
    """
    nodes = model.arch.nodes
    known = dict(model.named_modules())
    step = make_step(model, Setting(setting.batch, setting.dtype, setting.train), device)
    with _watched({name: known[name] for name in nodes if name in known}, device) as seen:
        for _ in range(_WARM_UP + runs):
            step()
    ms = {name: statistics.median(times[_WARM_UP:]) * 1e3 for name, times in seen.items()}
    total = sum(ms.values())
    return [
        NodeTime(name, nodes[name].op, ms[name], ms[name] / total, nodes[name].macs * setting.batch)
        for name in nodes
        if name in ms
    ]


@contextmanager
def _watched(modules: dict[str, nn.Module], device: str) -> Iterator[dict[str, list[float]]]:
    """Seconds of each call of some modules, as long as this lasts."""
    seen: dict[str, list[float]] = {name: [] for name in modules}
    started: dict[str, float] = {}
    hooks = []
    for name, module in modules.items():
        hooks.append(module.register_forward_pre_hook(_before(name, started, device)))
        hooks.append(module.register_forward_hook(_after(name, started, seen, device)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _before(name: str, started: dict[str, float], device: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        synchronize(device)
        started[name] = time.perf_counter()

    return hook


def _after(name: str, started: dict[str, float], seen: dict[str, list[float]], device: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        synchronize(device)
        seen[name].append(time.perf_counter() - started[name])

    return hook

"""Measured time of one call on a named device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from blockforge.api import build
from blockforge.compiler import Architecture
from blockforge.errors import SearchError
from blockforge.measure.profile import Setting, measure, pick_device


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one inference call, to be kept small; `spread` beside it says how far to trust it.

    It is the time on this machine with what else it does now: other workers on the same cores make it longer.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        batch: images in a call.
        dtype: fp32, bf16 or fp16.
        seconds: how long to measure; at least seven calls are.
    """

    name: ClassVar[str] = "latency"
    direction: ClassVar[Literal["maximize", "minimize"]] = "minimize"
    cost: ClassVar[float] = 2.0
    device: str = "cpu"
    batch: int = 1
    dtype: str = "fp32"
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.seconds > 0:
            raise SearchError("latency measures no images\n  hint: latency:batch=1,seconds=1")

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return f"latency on {self.device}, {self.dtype}, batch {self.batch}"

    def __call__(self, arch: Architecture) -> dict[str, float]:
        """Raises: ProfileError if the device is not there, or memory does not do."""
        device = pick_device(self.device)
        times = measure(build(arch, seed=0), Setting(self.batch, self.dtype), device, self.seconds)
        return {self.name: times.p50_ms, "spread": times.spread}


latency = Latency

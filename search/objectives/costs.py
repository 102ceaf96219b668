"""Figures of the compiled graph as objectives: `macs`, `params`, `activation_bytes`, `depth`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blockforge.compiler import Architecture

COSTS = ("macs", "params", "activation_bytes", "depth")


@dataclass(frozen=True)
class Cost:
    """One of `COSTS`, to be kept small."""

    name: str
    direction: Literal["maximize", "minimize"] = "minimize"
    cost: float = 0.0

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        return self.name

    def __call__(self, arch: Architecture) -> float:
        return float(getattr(arch, self.name))

"""One forward pass: that a built model runs, what it gives, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from blockforge.api import proof

if TYPE_CHECKING:
    from blockforge.compiler.lowering.backbone import Backbone


@dataclass(frozen=True)
class Proof:
    """A forward pass that ran."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    finite: bool
    ms: float
    device: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        shapes = " -> ".join("x".join(map(str, s)) for s in (self.input, self.output))
        finite = "" if self.finite else ", with values that are not finite"
        where = f"float32, {self.device}, {self.threads} threads"
        return f"forward pass: {shapes}{finite} in {self.ms:.0f} ms ({where})"


def prove(model: Backbone) -> Proof:
    """Run `model` twice on noise of its spec's size and time the second pass: the first one warms up."""
    proof(model)
    start = time.perf_counter()
    y = proof(model)
    ms = (time.perf_counter() - start) * 1e3
    image = model.arch.plan.input
    shape = (1, image.channels, *image.size)
    return Proof(shape, tuple(y.shape), bool(y.isfinite().all()), ms, str(y.device), torch.get_num_threads())

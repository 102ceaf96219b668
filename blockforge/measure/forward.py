"""One forward pass: that a built model runs, what it gives, and how long it takes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from blockforge.api import proof
from blockforge.compiler.lowering.outputs import by_name, main_output

if TYPE_CHECKING:
    from blockforge.compiler.lowering.backbone import Backbone


@dataclass(frozen=True)
class Proof:
    """A forward pass that ran. `outputs`: shapes by name, where the network has `heads`; `output`: the main one's."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    outputs: dict[str, tuple[int, ...]]
    finite: bool
    ms: float
    device: str
    threads: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        named = [f"{name} {_sides(shape)}" for name, shape in self.outputs.items()]
        shapes = f"{_sides(self.input)} -> {', '.join(named) or _sides(self.output)}"
        finite = "" if self.finite else ", with values that are not finite"
        where = f"float32, {self.device}, {self.threads} threads"
        return f"forward pass: {shapes}{finite} in {self.ms:.0f} ms ({where})"


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def prove(model: Backbone) -> Proof:
    """Run `model` twice on noise of its spec's size and time the second pass: the first one warms up."""
    proof(model)
    start = time.perf_counter()
    y = proof(model)
    ms = (time.perf_counter() - start) * 1e3
    image = model.arch.plan.input
    shape = (1, image.channels, *image.size)
    main, every = main_output(y), by_name(y)
    named = {name: tuple(output.shape) for name, output in every.items()} if model.arch.plan.names_outputs else {}
    finite = all(bool(output.isfinite().all()) for output in every.values())
    return Proof(shape, tuple(main.shape), named, finite, ms, str(main.device), torch.get_num_threads())

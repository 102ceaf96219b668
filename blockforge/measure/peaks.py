"""`blockforge bench memory`: the peak that is predicted of inference, beside what torch allocates on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from blockforge.api import build
from blockforge.compiler import Architecture, compile_spec
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.measure.memory import allocated_peak
from blockforge.spec import SpecLike
from blockforge.units import format_bytes


@dataclass(frozen=True)
class Peak:
    """Bytes of one forward pass in float32. `predicted` is `Architecture.peak_activation_bytes(batch)`."""

    name: str
    size: int
    batch: int
    predicted: int
    allocated: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.allocated

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def measure(source: SpecLike, sizes: Sequence[int], batches: Sequence[int]) -> Iterator[Peak]:
    """Build a network for square images of each size, and run it on noise. Raises: SpecError if it is wrong."""
    for size in sizes:
        arch = compile_spec(source, {"input.size": size})
        yield from _measured(arch, size, batches)


def _measured(arch: Architecture, size: int, batches: Sequence[int]) -> Iterator[Peak]:
    model = build(arch, seed=0).eval()
    images = torch.randn(max(batches), arch.plan.input.channels, size, size)
    with torch.inference_mode():
        model(images[:1])  # what is made once is not a call's
        for batch in batches:
            x = images[:batch]
            yield Peak(arch.name, size, batch, arch.peak_activation_bytes(batch), allocated_peak(partial(model, x)))


def table(peaks: Sequence[Peak]) -> TextTable:
    """The peaks, to be printed by rich."""
    title = "peak of inference: predicted against allocated, float32, CPU"
    columns = (Number("size"), Number("batch"), Number("predicted"), Number("allocated", leaves=1), Number("ratio"))
    shown = TextTable(Label("model"), *columns, title=title)
    for p in peaks:
        sizes = (format_bytes(p.predicted), format_bytes(p.allocated))
        shown.add_row(p.name, str(p.size), str(p.batch), *sizes, f"{p.ratio:.3f}")
    return shown

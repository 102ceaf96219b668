"""How long the compiler takes, beside what one does without it: building the module and counting on it."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from blockforge.api import build, proof
from blockforge.blocks.registry import load_blocks
from blockforge.compiler import compile_spec
from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.spec import Hole, Spec, from_text, load, to_yaml

if TYPE_CHECKING:
    from rich.console import Group

_SLOW_RUNS = 5
"""Repetitions of what takes long, building and counting, at most."""


@dataclass(frozen=True)
class Timing:
    """Repetitions of one thing: median, and the middle half of them."""

    name: str
    median_ms: float
    low_ms: float
    high_ms: float
    runs: int
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "per_second": 1e3 / self.median_ms}


def measure(spec: str, runs: int) -> list[Timing]:
    """Time everything on one core, in this order: text to Architecture for the first time, again; filled
    spaces to Architectures; building the module; counting on it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(_measure(spec, runs))
    finally:
        torch.set_num_threads(threads)


def _measure(source: str, runs: int) -> Iterator[Timing]:
    load_blocks()  # importing them is not compiling
    spec = load(source)
    text = to_yaml(spec)
    yield _time("text -> Architecture, first time", lambda: compile_spec(from_text(text)).macs, 1, "nothing memoised")
    yield _time("text -> Architecture", lambda: compile_spec(from_text(text)).macs, runs)
    space, note = _space(spec)
    rng = random.Random(0)
    yield _time(
        "filled space -> Architecture",
        lambda: compile_spec(space, ask=lambda h: _answer(h, rng)).macs,
        runs * 10,
        note,
    )
    arch = compile_spec(spec)
    model = build(arch, seed=0)
    slow = min(runs, _SLOW_RUNS)
    yield _time("Architecture -> module", lambda: build(arch, seed=0), slow, "with initialised weights")
    counted = FlopCounterMode(display=False)

    def count() -> None:
        with counted:
            proof(model)

    timing = _time("counting with FlopCounterMode", count, slow, "on a built module")
    yield timing


def _time(name: str, run: Callable[[], Any], runs: int, note: str = "") -> Timing:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    low, median, high = statistics.quantiles(times, n=4) if runs > 1 else times * 3
    return Timing(name, median, low, high, runs, note)


def _space(spec: Spec) -> tuple[Spec, str]:
    """The spec with its depths and image size as holes: what a search compiles, without its sampler."""
    overrides: dict[str, Any] = {"input.size": {"$int": [160, 320, 32]}}
    for i, stage in enumerate(spec.stages):
        if isinstance(stage.depth, int):
            overrides[f"stages.{i}.depth"] = {"$int": [max(1, stage.depth // 2), stage.depth * 2]}
    return load(spec, overrides), "random depths and image sizes"


def _answer(hole: Hole, rng: random.Random) -> Any:
    if hole.kind == "choice":
        return rng.choice(hole.labels)
    return (
        rng.randrange(int(hole.low), int(hole.high) + 1, hole.step)
        if hole.kind == "int"
        else rng.uniform(hole.low, hole.high)
    )


def table(timings: list[Timing], spec: str) -> Group:
    """The timings, to be printed by rich."""
    from rich.console import Group

    shown = TextTable(
        Label(spec), Number("median"), Number("middle half", leaves=2), Number("per second"), Number("runs", leaves=1),
        Words("", leaves=3),
    )  # fmt: skip
    for t in timings:
        spread = f"{t.low_ms:.2f} to {t.high_ms:.2f}" if t.runs > 1 else ""
        shown.add_row(t.name, f"{t.median_ms:.2f} ms", spread, f"{1e3 / t.median_ms:.0f}", str(t.runs), t.note)
    return Group(shown, Prose(f"torch {torch.__version__}, one CPU thread"))

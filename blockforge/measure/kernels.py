"""`blockforge bench kernels`: every backend of an operator beside what is usually done, in turn, in one process."""

from __future__ import annotations

import importlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.kernels import backend, operators
from blockforge.kernels.benchmark import Case
from blockforge.measure.memory import allocated_peak

_WARM_UP = 2
_READING = 0.01
"""Seconds that a reading of the clock spans at least."""


@dataclass(frozen=True)
class Timing:
    """One side of one case.

    Attributes:
        side: a backend, or the name of the baseline.
        ms: median of one call.
        best_ms: the least, which other programs on the machine disturb least.
        faster: how many times faster than the baseline: median over the rounds of baseline / side; `low` and
            `high` hold the middle 80% of them.
        memory: inputs, outputs (with gradients, theirs too) and everything held beside them at the worst moment, over
            inputs and outputs alone.
        difference: relative difference from the baseline's output.
    """

    op: str
    case: str
    side: str
    ms: float
    best_ms: float
    faster: float
    low: float
    high: float
    memory: float
    difference: float


def cases(op: str | None) -> list[tuple[str, Case]]:
    """The cases of one operator, or of all. Raises: BlockforgeError if there is no such operator."""
    known = [name for name in operators() if find_spec(f"blockforge.kernels.{name}.bench")]
    if op is not None and op not in known:
        raise BlockforgeError(f"no operator named '{op}' is timed\n  hint: {did_you_mean(op, known)}")
    named_cases = []
    for name in [op] if op else known:
        module = importlib.import_module(f"blockforge.kernels.{name}.bench")
        named_cases += [(name, case) for case in module.cases()]
    return named_cases


def measure(op: str | None, *, backward: bool, runs: int, threads: int, device: str) -> Iterator[Timing]:
    """Time every case, one reading of each side in turn, `runs` times after two that do not count."""
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        for name, case in cases(op):
            yield from _measure(name, case, torch.device(device), backward, runs)
    finally:
        torch.set_num_threads(before)


def _measure(op: str, case: Case, device: torch.device, backward: bool, runs: int) -> Iterator[Timing]:
    inputs = tuple(t.requires_grad_(backward) for t in case.make(device))
    sides = {case.baseline_name: timed_call(case.baseline, inputs, None, backward)}
    for name in backends_of(op, inputs[0]):
        sides[name] = timed_call(case.run, inputs, name, backward)
    outputs = {side: run() for side, run in sides.items()}
    size = sum(t.nbytes for t in (*inputs, outputs[case.baseline_name])) * (1 + backward)
    seconds_of = in_turn(sides, runs, device)
    expected = outputs[case.baseline_name]
    for side, run in sides.items():
        ratios = sorted(a / b for a, b in zip(seconds_of[case.baseline_name], seconds_of[side], strict=True))
        tenth = len(ratios) // 10
        difference = float((outputs[side] - expected).norm() / expected.norm())
        if difference > case.tolerance:
            raise AssertionError(f"{op}, {case.name}: {side} differs from {case.baseline_name} by {difference:.1e}")
        held = sum(t.nbytes for t in inputs) + allocated_peak(run, str(device))
        ms, faster = statistics.median(seconds_of[side]) * 1e3, statistics.median(ratios)
        best = min(seconds_of[side]) * 1e3
        yield Timing(op, case.name, side, ms, best, faster, ratios[tenth], ratios[-1 - tenth], held / size, difference)


def in_turn(sides: dict[str, Callable[[], Tensor]], runs: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds that a call of each side takes, the mean of a reading. A short call is repeated in it: right after
    another side it finds the processor's caches empty, which is the other side's doing."""
    seconds_of: dict[str, list[float]] = {side: [] for side in sides}
    repeats = dict.fromkeys(sides, 1)
    for round_ in range(-_WARM_UP, runs):
        for side, run in sides.items():
            start = time.perf_counter()
            for _ in range(repeats[side]):
                run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / repeats[side]
            if round_ >= 0:
                seconds_of[side].append(seconds)
            else:
                repeats[side] = max(1, math.ceil(_READING / seconds))
    return seconds_of


def backends_of(op: str, x: Tensor) -> list[str]:
    """What can run the operator and is meant to be fast there."""
    usable = operators()[op].available(x)
    return [name for name in usable if name != "reference" and (name != "triton" or x.is_cuda)]


def timed_call(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], name: str | None, backward: bool
) -> Callable[[], Tensor]:
    """One call as it is timed: on a backend (None: as auto chooses), with the way back if asked for."""

    def run() -> Tensor:
        with backend(name or "auto"), torch.set_grad_enabled(backward):
            y = function(*inputs)
            if backward:
                torch.autograd.grad(y, inputs, torch.ones_like(y))
        return y.detach()

    return run


def table(timings: list[Timing], backward: bool, device: str, threads: int) -> TextTable:
    """The timings, to be printed by rich."""
    what = "forward and backward" if backward else "forward"
    title = f"{what}, float32, {device}, {threads or torch.get_num_threads()} threads, torch {torch.__version__}"
    shown = TextTable(
        Label("operator"), Words("case"), Words("side"), Number("ms"), Number("best ms", leaves=1),
        Number("times faster"), Number("middle 80%", leaves=3), Number("memory", leaves=2), title=title,
    )  # fmt: skip
    last = ("", "")
    for t in timings:
        op, case = ("" if t.op == last[0] else t.op), ("" if (t.op, t.case) == last else t.case)
        last = (t.op, t.case)
        spread = f"{t.low:.1f} to {t.high:.1f}"
        shown.add_row(
            op, case, t.side, f"{t.ms:.2f}", f"{t.best_ms:.2f}", f"{t.faster:.1f}", spread, f"{t.memory:.2f}x"
        )
    return shown

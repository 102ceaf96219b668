"""How the cost of a scan grows with its map: `blockforge bench kernels --scaling`."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.figures import new_figure
from blockforge.kernels.cross_scan import bench as cross_scan
from blockforge.measure.kernels import backends_of, in_turn, timed_call

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Group

SIDES = (56, 80, 112, 160, 224, 320, 448)
"""Of the maps; the number of positions about doubles from one to the next."""
DIM, STATES, RANK = 64, 1, 4


@dataclass(frozen=True)
class Point:
    """Time of one backend on one map: median of one call."""

    backend: str
    side: int
    positions: int
    ms: float


def measure(*, backward: bool, runs: int, threads: int, device: str) -> list[Point]:
    """Scan square maps of 64 channels in four directions, with every backend in turn."""
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        return [p for side in SIDES for p in _points(side, torch.device(device), backward, runs)]
    finally:
        torch.set_num_threads(before)


def _points(side: int, device: torch.device, backward: bool, runs: int) -> list[Point]:
    inputs = tuple(t.requires_grad_(backward) for t in cross_scan.make(1, side, DIM, STATES, RANK, device))
    names = backends_of("cross_scan", inputs[0])
    calls = {name: timed_call(cross_scan.run, inputs, name, backward) for name in names}
    seconds_of = in_turn(calls, runs, device)
    return [Point(name, side, side * side, statistics.median(seconds_of[name]) * 1e3) for name in names]


def exponents(points: list[Point]) -> dict[str, float]:
    """Of each backend the p of ms ~ positions ** p, fitted by least squares to the logarithms; 1 is linear."""
    slopes = {}
    for name in dict.fromkeys(p.backend for p in points):
        own = [p for p in points if p.backend == name]
        x, y = ([math.log(getattr(p, of)) for p in own] for of in ("positions", "ms"))
        slopes[name] = statistics.linear_regression(x, y).slope
    return slopes


def table(points: list[Point], backward: bool, device: str, threads: int) -> Group:
    """The points, with bars of the time a position takes: of equal length where the cost is linear."""
    from rich.console import Group

    what = "forward and backward" if backward else "forward"
    threads = threads or torch.get_num_threads()
    title = f"cross_scan, four directions, {DIM} channels: {what}, float32, {device}, {threads} threads"
    shown = TextTable(
        Label("backend"), Words("map"), Number("ms"), Number("ns a position"), Words("", leaves=1), title=title
    )
    slowest = max(p.ms / p.positions for p in points)
    last = ""
    for p in sorted(points, key=lambda p: p.backend):
        bar = "█" * max(1, round(40 * p.ms / p.positions / slowest))
        per_position = f"{p.ms / p.positions * 1e6:.0f}"
        shown.add_row(p.backend if p.backend != last else "", f"{p.side}x{p.side}", f"{p.ms:.2f}", per_position, bar)
        last = p.backend
    fits = ", ".join(f"{name} {p:.2f}" for name, p in exponents(points).items())
    return Group(shown, Prose(f"time ~ positions ** p, p: {fits}; 1 is linear"))


def plot(points: list[Point]) -> Figure:
    """Time against positions, both on logarithmic axes, with a line of slope 1."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for name, p in exponents(points).items():
        own = [q for q in points if q.backend == name]
        x = [q.positions for q in own]
        axes.plot(x, [q.ms for q in own], marker="o", label=f"{name}: positions ** {p:.2f}")
        axes.plot(x, [own[0].ms * n / x[0] for n in x], color="#999999", linestyle=":", zorder=0)
    sides = sorted({(q.positions, q.side) for q in points})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([n for n, _ in sides], [f"{s}x{s}" for _, s in sides], rotation=30)
    axes.minorticks_off()
    axes.set(xlabel="map", ylabel="ms", title="Scan in four directions; dotted: linear")
    axes.legend()
    return figure

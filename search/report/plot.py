"""Score against MACs as a picture."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from blockforge.figures import new_figure
from blockforge.search.study.records import TrialRecord
from blockforge.units import format_count

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

_WIDE = 56
"""Letters that there is room for beside the upright axis."""
_BLUE, _ORANGE, _GREY, _RED = "#4c78a8", "#e4572e", "#888888", "#b02a30"


def plot(result: SearchResult) -> Figure:
    """The evaluated candidates, the front of those that no other beats, and the budget."""
    figure = new_figure(8.4, 5.2)
    axes = figure.add_subplot()
    scored, front = result.ranked, result.pareto
    left, right = _limits(scored, result.budget.macs)
    axes.set_xlim(left, right)
    _candidates(axes, figure, scored)
    _front(axes, front)
    if result.budget.macs is not None:
        limit, label = result.budget.macs, _budget_label(result)
        axes.axvline(limit, color=_RED, linestyle="--", linewidth=1.2, label=label)
        axes.axvspan(limit, right, color=_RED, alpha=0.06, linewidth=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value) if value > 0 else "0"))
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.set_xlabel("multiply-adds of one image (MACs; papers say FLOPs)")
    axes.set_ylabel(_value_label(result))
    axes.set_title(f"{result.space.name}: {len(scored)} candidates", loc="left", fontsize=11)
    axes.margins(y=0.1)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=8.5)
    return figure


def _candidates(axes: Axes, figure: Figure, scored: list[TrialRecord]) -> None:
    points = axes.scatter(
        [float(t.macs or 0) for t in scored], [_value(t) for t in scored],
        c=[(t.params or 0) / 1e6 for t in scored],
        cmap="viridis_r", s=34, alpha=0.9, edgecolors="white", linewidths=0.5, zorder=3,
        label="evaluated candidate",
    )  # fmt: skip
    bar = figure.colorbar(points, ax=axes, pad=0.015, aspect=32)
    bar.set_label("parameters (million)")
    bar.outline.set_visible(False)


def _front(axes: Axes, front: list[TrialRecord]) -> None:
    macs, scores = [float(t.macs or 0) for t in front], [_value(t) for t in front]
    if len(front[0].values or ()) == 1:
        axes.step(macs, scores, where="post", color=_ORANGE, linewidth=1.6, zorder=2)
    axes.plot(
        macs, scores, "o", markersize=9, markerfacecolor="none", markeredgecolor=_ORANGE, markeredgewidth=1.6,
        label="Pareto front", zorder=4,
    )  # fmt: skip
    best, (left, right) = front[-1], axes.get_xlim()
    side = -1 if macs[-1] > (left + right) / 2 else 1  # where there is room for the words
    axes.annotate(
        f"{_value(best):.4g}, {format_count(best.params or 0)} params", (macs[-1], scores[-1]), xytext=(8 * side, 10),
        textcoords="offset points", ha="right" if side < 0 else "left", fontsize=8.5, color=_ORANGE,
    )  # fmt: skip


def _value(trial: TrialRecord) -> float:
    """What stands on the upright axis: the first value."""
    assert trial.values
    return trial.values[0]


def _value_label(result: SearchResult) -> str:
    better = "larger" if result.plan.signs[0] > 0 else "smaller"
    said = f"{result.plan.value_names[0]} ({result.objective.partition('(')[0]}; {better} is better)"
    return textwrap.fill(said, _WIDE)


def _limits(scored: list[TrialRecord], budget: int | None) -> tuple[float, float]:
    macs = [float(t.macs or 0) for t in scored] + ([float(budget)] if budget is not None else [])
    low, high = min(macs), max(macs)
    margin = 0.05 * ((high - low) or high or 1.0)
    return max(0.0, low - margin), high + margin


def _budget_label(result: SearchResult) -> str:
    refused = result.counts["refused"]
    return f"budget {result.budget} ({refused} over it)" if refused else f"budget {result.budget}"

"""What `blockforge space` shows: tables and bars in the terminal, the histograms as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group
from rich.text import Text

from blockforge.console.prose import Prose
from blockforge.console.text_table import Label, Number, TextTable, Words
from blockforge.figures import new_figure
from blockforge.search.space.load import number_of_values
from blockforge.search.space.size import Size
from blockforge.search.space.statistics import Sample, histogram
from blockforge.spec import Hole, Spec, holes
from blockforge.units import COSTS, Budget, figure, format_bytes, format_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"macs": "MACs", "params": "params", "activation_bytes": "activation memory"}
_BAR = 30


def describe_space(space: Spec, size: Size, sample: Sample, budget: Budget) -> Group:
    """Everything that is known of a space."""
    parts: list[Any] = [_holes_table(space), "", Prose(size_text(space, size))]
    parts += [*map(Prose, _sample_lines(sample, budget)), "", _bars(sample, budget)]
    return Group(*parts)


def as_json(space: Spec, size: Size, sample: Sample, budget: Budget) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "space": space.name,
        "combinations": size.combinations,
        "upper_bound_because": list(size.bounded_by),
        "continuous": list(size.continuous),
        "holes": {
            name: {"kind": hole.kind, "values": hole.values(), "count": number_of_values(hole)}
            for name, hole in holes(space).items()
        },
        "require": list(space.lifted.get("require", ())),
        "sample": {
            "drawn": sample.drawn, "mended": len(sample.mended), "valid": sample.valid,
            "refused": dict(sample.refused), "costs": sample.costs,
        },
        "budget": budget.as_dict(),
        "within_budget": sample.within,
    }  # fmt: skip


def size_text(space: Spec, size: Size) -> str:
    """`'tiny' has 1.30e+13 combinations (12,990,...)`, and what they are."""
    number = f"{size.combinations:,}" if size.combinations < 1e15 else f"{size.combinations:.3e}"
    lines = [f"{space.name}: {number} combinations of {len(holes(space))} holes, counted exactly"]
    if size.continuous:
        lines.append(f"  ranges of floats count once each: {', '.join(size.continuous)}")
    lines.append(f"  an upper bound on its networks: {'; '.join(size.bounded_by)}")
    return "\n".join(lines)


def plot_histograms(space: Spec, sample: Sample, budget: Budget) -> Figure:
    """The histograms side by side, with the budget's limits."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    picture = new_figure(11, 3.4)
    for axes, name in zip(picture.subplots(1, len(COSTS)), COSTS, strict=True):
        bins = histogram(sample.costs[name], 24)
        axes.bar(
            [a for a, _, _ in bins], [n for *_, n in bins], [b - a for a, b, _ in bins], align="edge", color="#4c78a8"
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _, name=name: figure(name, v)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(_TITLES[name], loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if (limit := budget.limits.get(name)) is not None:
            axes.axvline(limit, color="#b02a30", linestyle="--", linewidth=1.2)
    picture.suptitle(f"{space.name}: {sample.valid} valid networks of {sample.drawn} drawn", x=0.01, ha="left")
    return picture


def _holes_table(space: Spec) -> TextTable:
    table = TextTable(Label("hole"), Words("values"), Number("number"), title=f"{space.name}: holes")
    for name, hole in holes(space).items():
        table.add_row(name, _values(hole), "" if hole.kind in ("float", "log") else str(number_of_values(hole)))
    return table


def _values(hole: Hole) -> str:
    scale = {"log": ", logarithmic"}.get(hole.kind, "")
    return hole.values() + scale


def _sample_lines(sample: Sample, budget: Budget) -> list[str]:
    lines = [f"of {sample.drawn} random draws {sample.valid} ({sample.valid / sample.drawn:.0%}) are valid"]
    if sample.mended:
        lines.append(f"  {len(sample.mended)} broke narrow relations and took the nearest values found that keep them")
    lines += [f"  {count} refused: {why}" for why, count in sample.refused.most_common(5)]
    if budget.limits:
        known = budget.compiled
        lines.append(f"  {sample.within} of the valid ones ({sample.within / sample.valid:.1%}) lie within {known}")
    if budget.latencies:
        lines.append("  the latency is not measured here")
    if budget.training_bytes is not None:
        lines.append("  the training memory is not asked here: it takes about a second for each network")
    return lines


def _bars(sample: Sample, budget: Budget) -> Columns:
    """The histograms side by side, as many as there is room for; bins of equal width on a logarithmic scale."""
    shown = (_histogram(name, sample.costs[name], budget.limits.get(name)) for name in COSTS)
    return Columns(shown, padding=(0, 4))


def _histogram(name: str, values: list[int], limit: int | None) -> Text:
    bins = histogram(values)
    most = max(n for *_, n in bins)
    low, median, high = (_short(name, v) for v in (min(values), sorted(values)[len(values) // 2], max(values)))
    text = Text(f"{_TITLES[name]}\n{low} to {high}, median {median}\n", style="bold")
    for start, end, number in bins:
        bar = "█" * round(_BAR * number / most * 0.5) or ("▏" if number else "")
        beyond = limit is not None and start > limit
        text.append(f"{_short(name, end):>8} ", style="default")
        text.append(f"{bar:<{_BAR // 2}} {number:>4}\n", style="red" if beyond else "default")
    return text


def _short(name: str, value: float) -> str:
    return format_bytes(value) if name == "activation_bytes" else format_count(value)

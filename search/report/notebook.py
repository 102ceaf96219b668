"""Charts of a search for notebooks, by plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockforge.extras import need
from blockforge.search.study.records import TrialRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from blockforge.search.result import SearchResult


def scatter(result: SearchResult) -> go.Figure:
    """The first value against the second, or against MACs where there is one; the front and the starts marked."""
    figure, names = _figure(), result.plan.value_names
    front = {t.number for t in result.pareto}
    several = len(names) > 1
    groups = {
        "candidate": [t for t in result.ranked if t.number not in front and t.start is None],
        "Pareto front": [t for t in result.ranked if t.number in front and t.start is None],
        "start": [t for t in result.ranked if t.start is not None],
    }
    for (name, trials), symbol in zip(groups.items(), ("circle", "star", "diamond"), strict=True):
        across = [_values(t)[1] if several else t.macs for t in trials]
        hover = [_hover(t, names) for t in trials]
        marker = {"symbol": symbol, "size": 7 if symbol == "circle" else 11}
        figure.add_scatter(
            x=across, y=[_values(t)[0] for t in trials], mode="markers", name=name, text=hover, marker=marker
        )
    if not several and result.budget.macs is not None:
        figure.add_vline(result.budget.macs, line_dash="dash", annotation_text="budget")
    across_title = names[1] if several else "MACs"
    return figure.update_layout(title=result.heading, xaxis_title=across_title, yaxis_title=names[0])


def history(result: SearchResult) -> go.Figure:
    """The first value of each candidate of the highest rung, and the best so far."""
    figure, sign = _figure(), result.plan.signs[0]
    scored = [t for t in result.trials if t.state == "scored"]
    top = max((t.rung for t in scored), default=0)
    scored = [t for t in scored if t.rung == top]
    best: list[float] = []
    for trial in scored:
        value = _values(trial)[0]
        best.append(value if not best or sign * value > sign * best[-1] else best[-1])
    numbers = [t.number for t in scored]
    figure.add_scatter(x=numbers, y=[_values(t)[0] for t in scored], mode="markers", name="candidate")
    figure.add_scatter(x=numbers, y=best, mode="lines", name="best so far", line_shape="hv")
    return figure.update_layout(title=result.heading, xaxis_title="trial", yaxis_title=result.plan.value_names[0])


def _figure() -> go.Figure:
    need("notebook", "plotly")
    import plotly.graph_objects as go

    return go.Figure(layout={"template": "plotly_white"})


def _values(trial: TrialRecord) -> tuple[float, ...]:
    assert trial.values is not None
    return trial.values


def _hover(trial: TrialRecord, names: list[str]) -> str:
    values = "<br>".join(f"{n} {v:.5g}" for n, v in zip(names, _values(trial), strict=True))
    return f"trial {trial.number}{f', {trial.start}' if trial.start else ''}<br>{values}<br>{trial.hash}"

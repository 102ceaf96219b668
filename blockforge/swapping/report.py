"""The report of a swap: what each budget costs beside other ways, what changed where, what each slot is worth."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockforge.api import build
from blockforge.compiler import Architecture
from blockforge.console.csv_text import to_csv
from blockforge.draw.svg import to_svg
from blockforge.figures import new_figure, write_figure
from blockforge.files import make_folder, write_text
from blockforge.measure.profile import Setting, measure
from blockforge.swapping.scores import Score
from blockforge.units import format_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from blockforge.swapping.result import Answer, SwapResult

REPORT, PLOT, BESIDE, CHANGES = "report.html", "answers.png", "beside.csv", "changes.svg"
_ROUNDS, _SECONDS = 3, 0.1
"""Of measuring the latency of one network."""
_CHOICE, _PARENT = "choice", "parent"
_COSTS = {"macs": "multiply-adds", "params": "parameters", "ms": "milliseconds of one image, CPU"}
_COLOURS = ("#e4572e", "#4c78a8", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#eeca3b", "#bab0ac")
_STYLE = """body{font:14px/1.45 system-ui,sans-serif;margin:24px;max-width:1100px;color:#222}
table{border-collapse:collapse;margin:8px 0}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img,svg{max-width:100%;height:auto}h2{margin-top:28px}"""


def write_report(result: SwapResult, folder: Path) -> None:
    """Write `report.html` and what it shows: `answers.png`, `beside.csv`, a picture a budget. Raises: OutputError."""
    rows = beside(result)
    write_text(folder / BESIDE, to_csv(rows))
    write_figure(folder / PLOT, draw(rows))
    for answer in result.answers:
        make_folder(folder / answer.folder)
        write_text(folder / answer.folder / CHANGES, picture(result.parent.arch, answer))
    write_text(folder / REPORT, _page(result, rows))


def beside(result: SwapResult) -> list[dict[str, Any]]:
    """A row a network: the parent, the answers, and what they stand beside."""
    rows = [_row("", _PARENT, result.parent.arch, None, result.own, result.tested)]
    for answer in result.answers:
        own = answer.model.arch
        rows.append(_row(answer.budget, _CHOICE, own, answer.expected, answer.score, answer.tested))
    rows += [_row(o.budget, o.way, o.arch, o.expected, o.score, o.tested) for o in result.others]
    archs = [result.parent.arch, *(a.model.arch for a in result.answers), *(o.arch for o in result.others)]
    return [row | {"ms": ms} for row, ms in zip(rows, _latencies(archs), strict=True)]


def _latencies(archs: Sequence[Architecture]) -> list[float]:
    """Milliseconds of one image on the CPU: all networks in turn, several times, so that what else the machine does
    falls on all of them; of each the least median."""
    setting = Setting(1, "fp32")
    rounds = [[measure(build(arch, seed=0), setting, "cpu", _SECONDS).p50_ms for arch in archs] for _ in range(_ROUNDS)]
    return [round(min(of_one), 3) for of_one in zip(*rounds, strict=True)]


def _row(
    budget: str, way: str, arch: Architecture, expected: float | None, score: Score, tested: Score | None
) -> dict[str, Any]:
    return {
        "budget": budget,
        "way": way,
        "macs": arch.macs,
        "params": arch.params,
        "ms": None,
        "expected_kl": expected if expected is None else round(expected, 5),
        "kl": round(score.kl, 5),
        "agreement": round(score.agreement, 2),
        "top1": score.top1,
        "test_agreement": tested.agreement if tested is not None else None,
        "test_top1": tested.top1 if tested is not None else None,
    }


def _figure_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What is drawn, and how it is called: the last word on the test images where there is one."""
    parent = rows[0]
    scored = "the images that alternatives were scored by, before any fine-tuning"
    names = {
        "test_top1": "top-1 of the test images",
        "test_agreement": "agreement with the parent on the test images",
        "top1": f"top-1 of {scored}",
        "agreement": f"agreement with the parent on {scored}",
    }
    name = next(n for n in names if parent[n] is not None)
    return name, names[name]


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against each cost, a line a way; the dashed line is the parent. Without what was not measured so."""
    figure = new_figure(4.6 * len(_COSTS), 4.4)
    several = figure.subplots(1, len(_COSTS), sharey=True)
    name, said = _figure_of(rows)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in (row for row in rows if row[name] is not None):
        way = row["way"].rstrip(" 0123456789")
        groups.setdefault(way, []).append(row)
    for axes, (cost, label) in zip(several, _COSTS.items(), strict=True):
        _panel(axes, groups, cost, name)
        axes.set_xlabel(label)
    several[0].set_ylabel(textwrap.fill(f"{said}, %", 48), fontsize=8)
    several[-1].legend(loc="lower right", fontsize=8, framealpha=0.9)
    return figure


def _panel(axes: Axes, groups: Mapping[str, Sequence[Mapping[str, Any]]], cost: str, name: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ways = [way for way in groups if way != _PARENT]
    for way, colour in zip(ways, _COLOURS * (1 + len(ways) // len(_COLOURS)), strict=False):
        points = sorted((row[cost], row[name]) for row in groups[way])
        line: dict[str, Any] = (
            {"linewidth": 2.2, "zorder": 4} if way == _CHOICE else {"linewidth": 1, "alpha": 0.8, "zorder": 3}
        )
        line |= {"linestyle": "none"} if way == "random" else {}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=way, color=colour, **line)
    (own,) = groups[_PARENT]
    axes.axhline(own[name], color="#888888", linestyle="--", linewidth=1, label=_PARENT)
    axes.plot(own[cost], own[name], "D", color="#555555", markersize=5, zorder=5)
    if cost != "ms":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(value) if value > 0 else "0"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def picture(parent: Architecture, answer: Answer) -> str:
    """The parent as SVG: a branch is the warmer, the larger the share of its multiply-adds that is gone."""
    gone: dict[str, float] = {}
    for chosen in answer.chosen:
        names = [chosen.slot.name]
        if chosen.slot.is_width:
            names = [name for name, node in parent.nodes.items() if node.stage == chosen.slot.stage]
        whole = sum(parent.nodes[name].costs.macs for name in names)
        share = 1.0 if chosen.is_skip else max(0.05, min(1.0, chosen.saved["macs"] / max(whole, 1)))
        gone |= dict.fromkeys(names, share)
    return to_svg(parent, heat=gone or None, heat_is="of its multiply-adds are gone")


def _page(result: SwapResult, rows: Sequence[Mapping[str, Any]]) -> str:
    _, said = _figure_of(rows)
    parent = result.parent.arch
    title = f"{parent.name}: {len(result.answers)} budgets, {len(result.alternatives)} alternatives"
    tuned = "Nothing was trained after."
    if result.tested is not None:
        untested = any(other.tested is None for other in result.others)
        beside = "; other ways were not, which --controls does: they stand in the table alone" if untested else ""
        tuned = f"The answers were fine-tuned, taught by the parent{beside}."
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{tuned} The figure drawn is {html.escape(said)}.</p>",
        f'<img src="{PLOT}" alt="accuracy against costs"><h2>Each budget beside other ways</h2>{_table(rows)}',
        f"<h2>What each slot is worth</h2><p>The least that saving in a slot costs, each alone.</p>{_slots(result)}",
        "<h2>What changed where</h2><p>Warm: how much of a branch's multiply-adds is gone.</p>",
    ]
    for answer in result.answers:
        changed = "; ".join(f"{a.slot.name}: {a.label}" for a in answer.chosen) or "nothing changed"
        source = html.escape(f"{answer.folder}/{CHANGES}")
        parts.append(f"<h3>{html.escape(answer.budget)}</h3><p>{html.escape(changed)}</p>")
        parts.append(f'<a href="{source}"><img src="{source}" alt="{html.escape(answer.budget)}"></a>')
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    return head + "\n".join(parts) + "\n"


def _slots(result: SwapResult) -> str:
    """A row a slot: what going costs, and the smallest cost for a part."""
    slots: dict[str, dict[str, Any]] = {}
    for a, s in zip(result.alternatives, result.scores, strict=True):
        row = slots.setdefault(a.slot.name, {"slot": a.slot.name, "block": a.slot.op, "alternatives": 0})
        row["alternatives"] += 1
        text = f"{s.kl:.5f} \u00b1 {s.error:.5f}"
        if a.is_skip:
            row |= {"KL without it": text, "MACs": format_count(a.saved["macs"])}
        elif "best" not in row or s.kl < row["best"]:
            row |= {"best": s.kl, "least KL": text, "by": a.label}
    columns = ("slot", "block", "MACs", "KL without it", "alternatives", "least KL", "by")
    return _table([{c: row.get(c, "-") for c in columns} for row in slots.values()])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = [n for n in rows[0] if any(row[n] is not None for row in rows)]
    cells = [("th", names), *(("td", [_said(row[n]) for n in names]) for row in rows)]
    return "<table>" + "".join(_line(kind, texts) for kind, texts in cells) + "</table>"


def _line(kind: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{html.escape(text)}</{kind}>' for text in texts)}</tr>"


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

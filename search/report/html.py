"""The report of a search as one HTML file: charts are drawn by a small script inside it, nothing is loaded."""

from __future__ import annotations

import bisect
import html
import json
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.diff import changes
from blockforge.errors import BlockforgeError
from blockforge.search.report.confirmed import COLUMNS, heading, rows, verdicts
from blockforge.search.report.files import best_files
from blockforge.search.report.page import PAGE
from blockforge.search.report.screened import screened
from blockforge.search.report.summary import dropped_starts
from blockforge.search.study.defaults import UNBOUNDED
from blockforge.search.study.folder import BEST
from blockforge.search.study.records import LABELS, TrialRecord
from blockforge.spec import Hole
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from blockforge.search.result import SearchResult

_TOP = 12
_LINES = 400
"""Candidates that are drawn as lines of parallel coordinates."""
_MOST_HOLES = 10
_PARTS = 4
"""Groups that the answers of a continuous hole are put into."""


def page(result: SearchResult) -> str:
    """The whole page."""
    data = json.dumps(_data(result), separators=(",", ":")).replace("<", "\\u003c")
    text = PAGE
    parts = {
        "@TITLE@": html.escape(f"{result.space.name}: {len(result.ranked)} candidates"),
        "@SUMMARY@": _summary(result),
        "@CONFIRMED@": _confirmed(result),
        "@HEADING@": html.escape(result.heading),
        "@TABLE@": _table(result),
        "@DIFFERENCES@": _differences(result),
        "@SIZE@": _size(result),
        "@DATA@": data,
    }
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return text


def _confirmed(result: SearchResult) -> str:
    """What the best were worth when they were trained again: the first table, where there is one."""
    if (known := result.confirmed) is None:
        return ""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in verdicts(result, known))
    if known.winner is None:
        return f"<h2>Confirmed</h2>{lines}"
    cells = [("th", COLUMNS), *(("td", row) for row in rows(known))]
    body = "".join(f"<tr>{''.join(f'<{k}>{html.escape(c)}</{k}>' for c in row)}</tr>" for k, row in cells)
    return f'<h2>{html.escape(heading(result, known))}</h2><table class="grid">{body}</table>{lines}'


def importances(result: SearchResult) -> dict[str, float]:
    """How much of the spread of the first value each hole explains by itself, the largest first.

    The share of the variance between groups of equal answers (eta squared), less what as many groups would explain by
    chance; a continuous range is cut into four groups. Among the scored candidates of the lowest rung.
    """
    scored = [t for t in result.trials if t.state == "scored" and t.rung == 0 and t.values]
    values = [(t.values or (0.0,))[0] for t in scored]
    n = len(values)
    mean = sum(values) / n if n else 0.0
    total = sum((v - mean) ** 2 for v in values)
    shares = {}
    for name, hole in result.plan.holes.items():
        groups: dict[str, list[float]] = {}
        group = _grouping(hole, [t.holes[name] for t in scored if name in t.holes])
        for trial, value in zip(scored, values, strict=True):
            groups.setdefault(group(trial.holes[name]) if name in trial.holes else "-", []).append(value)
        if total and 1 < len(groups) < n - 1:
            between = sum(len(g) * (sum(g) / len(g) - mean) ** 2 for g in groups.values())
            within = (total - between) / (n - len(groups))
            share = (between - (len(groups) - 1) * within) / (total + within)
            shares[name] = max(0.0, share)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _grouping(hole: Hole, answers: list[Any]) -> Callable[[Any], str]:
    """What answers count as equal: of a continuous range those of one quarter of them."""
    if hole.kind not in ("float", "log") or len(answers) < 2:
        return repr
    ends = statistics.quantiles(answers, n=_PARTS)
    return lambda answer: str(bisect.bisect(ends, answer))


def _data(result: SearchResult) -> dict[str, Any]:
    front = {t.number for t in result.pareto}
    files = best_files(result)
    names = result.plan.value_names
    explained = importances(result)
    scored = [t for t in result.trials if t.state == "scored" and t.values]
    points = [
        {
            "n": t.number, "v": list(t.values or ()), "m": t.macs, "p": t.params, "r": t.rung, "s": t.start,
            "f": int(t.number in front), "file": f"{BEST}/{files[t.number]}" if t.number in files else None,
        }
        for t in scored
    ]  # fmt: skip
    return {
        "names": names, "signs": list(result.plan.signs), "budget": result.budget.macs, "points": points,
        "importances": dict(list(explained.items())[: 2 * _MOST_HOLES]),
        "parallel": _parallel(result, scored, explained),
    }  # fmt: skip


def _parallel(result: SearchResult, scored: list[TrialRecord], explained: dict[str, float]) -> dict[str, Any]:
    """Axes for the holes that explain most, and a line a candidate: the place on each axis, from 0 to 1."""
    own = result.plan.holes
    names = list(explained)[:_MOST_HOLES]
    axes: list[dict[str, Any]] = []
    for name in names:
        hole = own[name]
        seen = [t.holes[name] for t in scored if name in t.holes]
        ticks = list(hole.labels) if hole.kind == "choice" else sorted(set(seen))
        shown = ticks if len(ticks) <= 8 else [ticks[i * (len(ticks) - 1) // 7] for i in range(8)]
        places = {repr(tick): i / max(1, len(ticks) - 1) for i, tick in enumerate(ticks)}
        axes.append(
            {
                "name": name,
                "ticks": [[places[repr(t)], f"{t:.3g}" if isinstance(t, float) else str(t)] for t in shown],
                "places": places,
            }
        )
    step = max(1, len(scored) // _LINES)
    lines = [
        {
            "n": t.number,
            "v": (t.values or (0.0,))[0],
            "y": [a["places"].get(repr(t.holes.get(a["name"]))) for a in axes],
        }
        for t in scored[::step]
    ]
    return {"axes": [{"name": a["name"], "ticks": a["ticks"]} for a in axes], "lines": lines}


def _summary(result: SearchResult) -> str:
    counts = ", ".join(f"{result.counts[s]} {label}" for s, label in LABELS.items() if result.counts[s])
    rows = {
        "space": result.space.name,
        "objectives": result.objective,
        "budget": str(result.budget) or "none",
        "sampler": f"{result.plan.sampler}, seed {result.plan.seed}",
        "trials": f"{result.evaluated}{f' of {result.target}' if result.target < UNBOUNDED else ''} evaluated"
        + (f"; {counts}" if counts else ""),
    }
    if result.plan.rungs:
        rows["rungs"] = ", ".join(m.text for m in result.plan.rungs) + f"; the best 1/{result.plan.eta} go up"
    if (line := screened(result)) is not None:
        rows["screen"] = line
    if starts := dropped_starts(result):
        rows["starts"] = "; ".join(starts)
    if (failure := result.first_failure) is not None:
        rows["first failure"] = f"trial {failure.number}: {failure.reason}"
    if result.stopped:
        rows["ended early"] = result.stopped
    return "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())


def _table(result: SearchResult) -> str:
    files, front = best_files(result), {t.number for t in result.pareto}
    names = result.plan.value_names
    training = result.budget.training_bytes is not None
    head = ["rank", *names, "rung", "MACs", "params", "activations", *(["training"] if training else []), "depth"]
    head += ["trial", "from", "spec"]
    rows = []
    for i, t in enumerate(result.ranked, 1):
        if t.number not in files and i > _TOP:
            continue
        link = f'<a href="{BEST}/{html.escape(files[t.number])}">{t.hash}</a>' if t.number in files else t.hash
        cells = [f"{i}{'*' if t.number in front else ''}", *(f"{v:.5g}" for v in t.values or ()), t.rung]
        cells += [
            format_count(t.macs or 0),
            format_count(t.params or 0),
            format_bytes(t.activation_bytes or 0),
            *([format_bytes(t.training_bytes or 0)] if training else []),
            t.depth,
        ]
        cells += [t.number, html.escape(t.start or ""), link]
        rows.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    header = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    return f"<table class=grid><tr>{header}</tr>{''.join(rows)}</table>"


def _differences(result: SearchResult) -> str:
    """How each of the best differs from the start that is nearest to it."""
    starts = {t.start: t for t in result.trials if t.start is not None and t.hash is not None}
    if not starts:
        return "<p>The search began with no seeds; --start names some.</p>"
    known = {name: _compiled(result, trial) for name, trial in starts.items()}
    parts = []
    for i, trial in enumerate(result.ranked[:5], 1):
        own = _compiled(result, trial)
        near = [
            (len(c), name, c) for name, arch in known.items() if arch and own and (c := changes(arch, own)) is not None
        ]
        if not near:
            continue
        count, name, units = min(near, key=lambda item: item[:2])
        title = f"rank {i} ({trial.hash}): {count} of its units differ from {name}" if count else f"rank {i} is {name}"
        cells = [[c.name, c.before or "-", c.after or "-", format_count(c.params), format_count(c.macs)] for c in units]
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(x)}</td>" for x in row) + "</tr>" for row in cells)
        head = f"<tr><th></th><th>{html.escape(name or '')}</th><th>rank {i}</th><th>params</th><th>MACs</th></tr>"
        parts.append(
            f"<details><summary>{html.escape(title)}</summary><table class=grid>{head}{rows}</table></details>"
        )
    return "".join(parts)


def _compiled(result: SearchResult, trial: TrialRecord) -> Architecture | None:
    try:
        return compile_spec(result.spec(trial))
    except BlockforgeError:
        return None


def _size(result: SearchResult) -> str:
    taus = {name: tau for name, tau in result.correlations.items() if tau is not None}
    if not taus:
        return "<p>Too few values to compare them with the candidates' size.</p>"
    listed = ", ".join(f"{html.escape(name)} {tau:+.2f}" for name, tau in taus.items())
    return (
        f"<p>Kendall's tau of the first value with size: {listed}. Near 1 or -1 it says no more than the size does.</p>"
    )

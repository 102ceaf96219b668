"""Does a score order networks as training does, and better than their size alone?

Truth is either published (accuracies of others, see `published`) or our own (`trained_networks`). Baselines of size
stand beside every score. A score predicts a task only if its tau and its lead over every baseline are both above 0 with
their whole bootstrap intervals.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import trained_networks as own
import typer
from published import TABLES, Point, read_points

from blockforge.cli import script
from blockforge.cli._output import JsonOption, console, print_json
from blockforge.compiler import Architecture, compile_spec
from blockforge.console.csv_text import to_csv
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.errors import BlockforgeError, did_you_mean
from blockforge.files import append_text, write_text
from blockforge.search.equal_cost.trainings import Run, read_runs
from blockforge.search.objectives.correlation import BASELINES, CAPACITY, baselines
from blockforge.search.objectives.measure import as_measure
from blockforge.search.objectives.ranking import Estimate, Rankings, estimate
from blockforge.search.objectives.scores.capacity import Capacity

PUBLISHED = tuple(f"{name}:size=112,images=8" for name in ("naswot", "expressivity", "zico"))
OWN = (*(f"{name}:data=mnist5k" for name in ("naswot", "expressivity", "zico")), "micro:steps=20,seed=100")
SIZE = "log params"
"""What is held fixed in a partial tau."""
Known = dict[tuple[str, str], float]
"""(hash of a network, text of an objective) -> score; NaN: it has none."""


class Ceiling(NamedTuple):
    """What a score that knew one seed's outcome would reach for another seed's: tau between training seeds."""

    seeds: int
    networks: int
    tau: Estimate


@dataclass(frozen=True)
class Truth:
    """Networks, and what each reached on every task, larger is better, as the mean over training seeds."""

    name: str
    networks: list[Architecture]
    tasks: dict[str, list[float]]
    objectives: tuple[str, ...]
    seeds: int | None = None
    ceiling: Ceiling | None = None


@dataclass(frozen=True)
class Row:
    """A score against a task. `gain`: lead over the strongest baseline; `lead`: over the sum of log(dim). Intervals
    hold 95% of the resamples."""

    truth: str
    task: str
    score: str
    networks: int
    tau: float
    tau_low: float
    tau_high: float
    partial: float
    partial_low: float
    partial_high: float
    gain: float
    gain_low: float
    gain_high: float
    lead: float
    lead_low: float
    lead_high: float
    predicts: bool


def published_truths(points: Path | None = None) -> list[Truth]:
    """One for each space of the published table, or of another one; tasks are those that all its points have."""
    groups: dict[str, list[Point]] = {}
    for point in read_points(points):
        groups.setdefault(point.space, []).append(point)
    known = []
    for space, group in groups.items():
        shared = [task for task in group[0].accuracies if all(task in p.accuracies for p in group)]
        tasks = {task: [p.accuracies[task] for p in group] for task in shared}
        known.append(Truth(space, [compile_spec(p.spec) for p in group], tasks, PUBLISHED))
    return known


def own_truth(candidates: Path, runs: Path) -> Truth:
    """Mean over the seeds that every candidate was trained with. Raises: TruthError."""
    networks, table = own.read_candidates(candidates), read_runs(runs)
    hashes = {arch.hash for arch in networks}
    by_seed: dict[int, dict[str, Run]] = {}
    for run in table:
        by_seed.setdefault(run.seed, {})[run.hash] = run
    whole = [of_seed for _, of_seed in sorted(by_seed.items()) if hashes <= of_seed.keys()]
    if not whole:
        text = f"{runs} holds no seed that all {len(networks)} candidates were trained with"
        raise own.TruthError(f"{text}\n  hint: python docs/experiments/trained_networks.py goes on with it")
    tasks = {
        "top-1": [float(np.mean([of_seed[a.hash].top1 for of_seed in whole])) for a in networks],
        "-loss": [-float(np.mean([of_seed[a.hash].loss for of_seed in whole])) for a in networks],
    }
    return Truth("own", networks, tasks, OWN, len(whole), _ceiling(networks, by_seed))


def _ceiling(networks: Sequence[Architecture], by_seed: Mapping[int, Mapping[str, Run]]) -> Ceiling | None:
    """Mean tau of the accuracies of two seeds, over the networks that all seeds have that at least half of the
    networks were trained with."""
    hashes = {a.hash for a in networks}
    known = [runs for runs in by_seed.values() if 2 * len(hashes & runs.keys()) >= len(hashes)]
    common = sorted(hashes.intersection(*known))
    if len(known) < 2:
        return None
    rankings = Rankings({str(i): [runs[h].top1 for h in common] for i, runs in enumerate(known)})
    pairs = [rankings.taus(str(a), str(b)) for a, b in itertools.combinations(range(len(known)), 2)]
    return Ceiling(len(known), len(common), estimate(np.mean(pairs, axis=0)))


def score(truth: Truth, objective: str, known: Known, report: Callable[[str, str, float], None]) -> list[float]:
    """The score of every network. `report` is told of each that was not known. What has no score ranks last."""
    measure = as_measure(objective)
    for arch in truth.networks:
        if (arch.hash, objective) not in known:
            try:
                value = measure(arch)[0] * measure.sign
            except BlockforgeError:
                value = math.nan
            known[arch.hash, objective] = value
            report(arch.hash, objective, value)
    values = [known[arch.hash, objective] for arch in truth.networks]
    finite = [v for v in values if math.isfinite(v)]
    return [v if math.isfinite(v) else min(finite, default=0.0) - 1 for v in values]


def compare(truth: Truth, scores: Mapping[str, Sequence[float]]) -> Iterator[Row]:
    """Every baseline and every score against every task."""
    sizes = ([getattr(a, name) for a in truth.networks] for name in ("macs", "params", "depth"))
    size = baselines(*sizes, [Capacity()(a) for a in truth.networks])
    rankings = Rankings({**size, **scores, **{f"task {t}": v for t, v in truth.tasks.items()}})
    for task in truth.tasks:
        target = f"task {task}"
        strongest = max(BASELINES, key=lambda b: rankings.tau(b, target).value)
        for name in (*BASELINES, *scores):
            tau, gain = rankings.tau(name, target), rankings.gain(name, strongest, target)
            leads = all(rankings.gain(name, b, target).low > 0 for b in BASELINES)
            predicts = name in scores and tau.low > 0 and leads
            partial = rankings.partial(name, target, SIZE) if name != SIZE else Estimate(*[math.nan] * 3)
            lead = rankings.gain(name, CAPACITY, target)
            yield Row(truth.name, task, name, len(truth.networks), *tau, *partial, *gain, *lead, predicts)


def truths(
    which: str, points: Path | None = None, candidates: Path | None = None, runs: Path | None = None
) -> list[Truth]:
    """The published ones, our own (measured here, or from files), or all. Raises: TruthError."""
    if which not in ("published", "own", "all"):
        hint = did_you_mean(which, ("published", "own", "all"))
        raise own.TruthError(f"no truth is called '{which}'\n  hint: {hint}")
    if (candidates is None) != (runs is None):
        raise own.TruthError("networks and what they reached belong together\n  hint: give --candidates and --runs")
    chosen = published_truths(points) if which != "own" else []
    if which != "published":
        files = (candidates or TABLES / "own_candidates.json", runs or TABLES / "own_runs.csv")
        chosen.append(own_truth(*files))
    return chosen


def compare_all(compared: Sequence[Truth], objectives: Sequence[str] | None, scores: Path | None) -> list[Row]:
    """Every truth with the objectives that are usual for it, or the given ones; see `read_scores`."""
    known = read_scores(scores)

    def keep(hash_: str, objective: str, value: float) -> None:
        if scores is not None:
            append_score(scores, hash_, objective, value)

    return [
        row
        for truth in compared
        for row in compare(truth, {text: score(truth, text, known, keep) for text in objectives or truth.objectives})
    ]


def report(truth: Truth, rows: Sequence[Row]) -> Iterator[TextTable | str]:
    """What a person reads of one truth, to be printed by rich."""
    title = f"{truth.name}, {len(truth.networks)} networks: Kendall's"
    yield f"{title} tau and its 95% interval; * predicts"
    yield table(rows, partial=False)
    yield f"{title} partial tau, {SIZE} held fixed"
    yield table(rows, partial=True)
    if truth.seeds is not None:
        yield f"Truth is the mean of {truth.seeds} training seed{'s' * (truth.seeds > 1)}."
    if truth.ceiling is not None:
        seeds, networks, (value, low, high) = truth.ceiling
        text = f"Ceiling: tau of the top-1 of two training seeds is {value:+.2f} ({low:+.2f} {high:+.2f})"
        yield f"{text}, {seeds} seeds, {networks} networks."
    yield from behind(rows)
    predicting = sorted({f"{row.score.partition(':')[0]} predicts {row.task}" for row in rows if row.predicts})
    yield (
        ", ".join(predicting) if predicting else f"No score predicts anything on {truth.name} that size does not."
    ) + "\n"


def behind(rows: Sequence[Row]) -> Iterator[str]:
    """Which scores lose to the sum of log(dim), and which lead, with their whole interval."""
    tasks = len({row.task for row in rows})
    said = []
    for name in dict.fromkeys(row.score for row in rows if row.score not in BASELINES):
        own = [row for row in rows if row.score == name]
        losing, leading = sum(row.lead_high < 0 for row in own), sum(row.lead_low > 0 for row in own)
        said.append(f"{name.partition(':')[0]} loses on {losing} and leads on {leading}")
    if said:
        yield f"Beside {CAPACITY}, of {tasks} tasks, with the whole interval: {'; '.join(said)}."


def read_scores(file: Path | None) -> Known:
    """Scores that were computed before; without a file, those beside this file."""
    source = file if file is not None else TABLES / "proxy_scores.csv"
    if not source.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(source.read_text(encoding="utf-8")))
    try:
        return {(row["hash"], row["objective"]): float(row["score"]) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise BlockforgeError(
            f"{source} is not a table of scores\n  hint: hash, objective and score are its columns"
        ) from None


def append_score(file: Path, hash_: str, objective: str, value: float) -> None:
    """Keep a score; one write a row."""
    row = {"hash": hash_, "objective": objective, "score": repr(value)}
    append_text(file, to_csv([row], header=not file.exists() or not file.stat().st_size))


def rows_csv(rows: Sequence[Row]) -> str:
    """All figures as CSV."""
    plain = [{k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
    return to_csv(plain, [f.name for f in fields(Row)])


def table(rows: Sequence[Row], partial: bool) -> TextTable:
    """The rows of one truth, to be printed by rich: scores down, tasks across."""
    tasks = list(dict.fromkeys(row.task for row in rows))
    shown = TextTable(Label("score"), *(Number(task.replace("_", "\n")) for task in tasks))
    for name in dict.fromkeys(row.score for row in rows):
        row_of = {row.task: row for row in rows if row.score == name}
        shown.add_row(name.partition(":")[0], *(_cell(row_of[task], partial) for task in tasks))
        if name == BASELINES[-1]:
            shown.add_section()
    return shown


def _cell(row: Row, partial: bool) -> str:
    value, low, high = (
        (row.partial, row.partial_low, row.partial_high) if partial else (row.tau, row.tau_low, row.tau_high)
    )
    if math.isnan(value):
        return "-"
    mark = "*" if row.predicts and not partial else ""
    return f"{value:+.2f}{mark}\n{low:+.2f} {high:+.2f}".replace("0.", ".")


def compare_proxies(
    objective: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:key=value,...]", help="A score in place of the usual ones; may be repeated."),
    ] = None,
    truth: Annotated[str, typer.Option(metavar="published|own|all", help="What to compare with.")] = "all",
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Known scores; new ones are added. Absent: the measured."),
    ] = None,
    points: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Other published points.")] = None,
    candidates: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Networks of our own truth.")] = None,
    runs: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="What they reached.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.csv", help="Write all figures here.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare training-free scores, and the size of networks, with what training gave.

    \b
    Examples:
      python docs/experiments/proxies.py
      python docs/experiments/proxies.py --truth own --objective micro:steps=20 --scores my_scores.csv
    """
    chosen = truths(truth, points, candidates, runs)
    rows = compare_all(chosen, objective, scores)
    if out is not None:
        write_text(out, rows_csv(rows))
    if json:
        print_json([asdict(row) for row in rows])
        return
    for each in chosen:
        for shown in report(each, [row for row in rows if row.truth == each.name]):
            console().print(shown)


if __name__ == "__main__":
    sys.exit(script(compare_proxies))

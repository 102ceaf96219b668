"""Regret curves of search strategies at equal cost, and whether one beats random search.

Regret is the best top-1 of any run in the table less the best that a run has found so far, in points; only full
trainings count as found. Runs of one seed begin with the same candidates, so strategies are compared seed by seed.

Shapes: S seeds, T points of cost, each one full training further than the one before.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from strategies import BASELINE, Setting, Strategy, Trial, parse_strategies, read_trials, run_all

from blockforge.cli import script
from blockforge.cli._output import JsonOption, console, print_json
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.figures import format_of, new_figure, write_figure
from blockforge.search.objectives.ranking import LEVEL, RESAMPLES, Estimate, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curves:
    """What the runs had found at each cost.

    Attributes:
        regret: of each strategy an S x T array; NaN before a run's first full training.
        best: top-1 of the best network of the table.
        trained: trainings that were made; the other evaluations were looked up.
    """

    setting: Setting
    regret: dict[str, np.ndarray]
    best: float
    trained: int
    evaluations: int
    seconds: float

    @property
    def first(self) -> int:
        """The first point at which every run has found something: areas begin there."""
        known = np.all([np.isfinite(r).all(0) for r in self.regret.values()], axis=0)
        return int(np.argmax(known)) if known.any() else known.size - 1


@dataclass(frozen=True)
class Verdict:
    """How a strategy did. Leads are over random search in points, positive where it is better, with the interval of
    a bootstrap over seeds.

    Attributes:
        top1, regret, area: mean and standard deviation over seeds; the area is the mean regret over the cost.
        wins: seeds with a better final network than random search's; equal ones count half.
    """

    strategy: str
    top1: tuple[float, float]
    regret: tuple[float, float]
    area: tuple[float, float]
    lead: Estimate | None
    area_lead: Estimate | None
    wins: float | None
    seeds: int

    @property
    def beats(self) -> bool:
        """Whether the intervals of both leads lie above 0. One seed has no interval."""
        if self.lead is None or self.area_lead is None or self.seeds < 2:
            return False
        return min(self.lead.low, self.area_lead.low) > 0


def curves(trials: Sequence[Trial], setting: Setting, strategies: Sequence[Strategy], seeds: int) -> Curves:
    """The curves of whole runs."""
    names = [s.name for s in strategies]
    own = [t for t in trials if t.strategy in names and t.seed < seeds]
    full = [t for t in own if t.steps == setting.steps and math.isfinite(t.top1)]
    best, unit = max(t.top1 for t in full), setting.cost(setting.steps)
    costs = np.arange(1, setting.trials + 1) * unit
    regret = {name: np.full((seeds, setting.trials), math.nan) for name in names}
    for t in full:
        row = regret[t.strategy][t.seed]
        row[costs >= t.cost] = np.fmin(row[costs >= t.cost], best - t.top1)
    trained = [t for t in own if t.trained]
    return Curves(setting, regret, best, len(trained), len(own), sum(t.seconds for t in trained))


def verdicts(runs: Curves) -> list[Verdict]:
    """How each strategy did, beside random search if that was run too."""
    seeds = len(next(iter(runs.regret.values())))
    drawn = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    resamples_RS = np.vstack([np.arange(seeds), drawn])
    final = {name: r[:, -1] for name, r in runs.regret.items()}
    area = {name: r[:, runs.first :].mean(1) for name, r in runs.regret.items()}
    rows = []
    for name in runs.regret:
        lead = area_lead = wins = None
        if name != BASELINE and BASELINE in final:
            leads = [values[BASELINE] - values[name] for values in (final, area)]
            lead, area_lead = (estimate(values_S[resamples_RS].mean(1)) for values_S in leads)
            wins = float((leads[0] > 0).sum() + (leads[0] == 0).sum() / 2)
        top1 = _spread(runs.best - final[name])
        rows.append(Verdict(name, top1, _spread(final[name]), _spread(area[name]), lead, area_lead, wins, seeds))
    return rows


def _spread(values_S: np.ndarray) -> tuple[float, float]:
    return float(values_S.mean()), float(values_S.std(ddof=1)) if len(values_S) > 1 else 0.0


def table(runs: Curves, rows: Sequence[Verdict]) -> TextTable:
    """The verdicts, to be printed by rich."""
    setting = runs.setting
    cost = f"{rows[0].seeds} seeds, each at the cost of {setting.trials} trainings of {setting.steps} steps"
    title = f"{setting.text}\n{cost}"
    shown = TextTable(
        Label("strategy"), Number("top-1"), Number("regret", leaves=3), Number("area", leaves=1),
        Number(f"lead over {BASELINE}"), Number("lead in area", leaves=2), Number("wins", leaves=4), title=title,
    )  # fmt: skip
    for row in rows:
        spreads = [f"{mean:.2f} ± {sd:.2f}" for mean, sd in (row.top1, row.regret, row.area)]
        leads = [f"{e.value:+.2f} ({e.low:+.2f} {e.high:+.2f})" if e else "" for e in (row.lead, row.area_lead)]
        wins = f"{row.wins:g} of {row.seeds}" if row.wins is not None else ""
        shown.add_row(row.strategy, *spreads, *leads, wins)
    return shown


def summary(runs: Curves, rows: Sequence[Verdict]) -> str:
    """What the table says of random search, and what the runs took."""
    interval = f"{LEVEL:.0%} interval"
    beating = [row.strategy for row in rows if row.beats]
    if beating:
        text = (
            f"Better than {BASELINE}, at the end and on the way, each with its whole {interval}: {', '.join(beating)}."
        )
    else:
        text = f"Nothing beats {BASELINE} with its whole {interval}."
    start = f"Areas begin at the cost of {runs.first + 1} trainings, where every run has trained something in full."
    effort = f"{runs.evaluations} evaluations, {runs.trained} trainings, {runs.seconds / 60:.0f} minutes on one core"
    return f"{text}\n{start}\nBest network of all: {runs.best:.2f}%. {effort}."


def draw(runs: Curves) -> Figure:
    """Median regret against cost, with the band from the first to the third quartile of the seeds."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    x = np.arange(1, runs.setting.trials + 1)
    for name, regret_ST in runs.regret.items():
        known = np.isfinite(regret_ST).all(0)
        low, middle, high = np.quantile(regret_ST[:, known], [0.25, 0.5, 0.75], axis=0)
        color = "#777777" if name == BASELINE else None
        (line,) = axes.plot(x[known], middle, label=name, color=color, drawstyle="steps-post")
        axes.fill_between(x[known], low, high, color=line.get_color(), alpha=0.15, step="post", linewidth=0)
    seeds = len(next(iter(runs.regret.values())))
    axes.set(
        xlabel=f"cost, in trainings of {runs.setting.steps} steps", ylabel="regret, points of top-1",
        title=f"{runs.setting.text}\nmedian and quartiles of {seeds} seeds",
    )  # fmt: skip
    axes.title.set_fontsize(9)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def compare_strategies(
    runs: Annotated[Path, typer.Option(metavar="FILE.csv", help="The table; what it has is not trained again.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the regret curves (.png, .svg, .pdf).")
    ] = None,
    strategies: Annotated[
        str, typer.Option(metavar="NAME[/STEPS],...", help="Samplers; with /STEPS a rung of so many steps below.")
    ] = "random,random/13,tpe,evolution,evolution/13",
    space: Annotated[str, typer.Option(help="The search space.")] = "tiny",
    budget: Annotated[str, typer.Option(help="What each network costs.")] = "2MMACs",
    fit: Annotated[float, typer.Option(metavar="SHARE", help="Each network's least share of the budget.")] = 0.95,
    data: Annotated[str, typer.Option(help="What to train on.")] = "mnist5k?val=0.5&test=none",
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "micro",
    steps: Annotated[int, typer.Option(min=2, help="Of a full training.")] = 40,
    trials: Annotated[int, typer.Option(min=1, help="Full trainings that a run may cost.")] = 40,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each strategy.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each trains on one thread.")] = 1,
    json: JsonOption = False,
) -> None:
    """Compare strategies of search with random search, at equal cost of training. Stops and goes on at any time.

    \b
    Examples:
      python docs/experiments/regret.py --runs search.csv --plot search.png
      python docs/experiments/regret.py --runs search.csv --strategies random,nsga2,evolution/10/20 --seeds 10
    """
    if plot is not None:
        format_of(plot)
    setting = Setting(space, budget, fit, data, recipe, steps, trials)
    named = parse_strategies(strategies, steps)
    if (signal := run_all(setting, named, seeds, runs, workers)) is not None:
        raise typer.Exit(128 + signal)
    compared = curves(read_trials(runs, setting), setting, named, seeds)
    rows = verdicts(compared)
    if plot is not None:
        write_figure(plot, draw(compared))
    if json:
        print_json([asdict(row) | {"beats": row.beats} for row in rows])
        return
    console().print(table(compared, rows))
    console().print(summary(compared, rows))


if __name__ == "__main__":
    sys.exit(script(compare_strategies))

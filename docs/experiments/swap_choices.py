"""What a swap's choice is worth: networks of one budget from one trained network, each fine-tuned alike.

For every parent, seed and budget: the combination that the solver chooses, uniform thinning, skipping alone, and random
combinations of the same alternatives; each is fine-tuned with distillation for one epoch, a fifth of the parent's
training, and measured once on the test images. Beside them networks as narrow as the budget asks for, trained from
scratch as long as the parent, with and without its answers; the choice fine-tuned for two epochs, about a third of what
the latter cost; and the parent itself fine-tuned like the others. A row is written as soon as it is known; the same
command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from scipy.stats import kendalltau

import blockforge as bf
from blockforge.cli import script
from blockforge.compiler import Architecture
from blockforge.files import cut_torn_line
from blockforge.search.budget import as_budget
from blockforge.search.equal_cost.kept_rows import append_row, read_rows
from blockforge.search.space.fit import fit as fitted
from blockforge.spec import load
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.baselines import drawn, skip_alone, uniform
from blockforge.swapping.importance import importances
from blockforge.swapping.others import narrower
from blockforge.swapping.pairs import Losses
from blockforge.swapping.scores import answers, compare, score
from blockforge.swapping.statistics import settled
from blockforge.swapping.task import by_layers, images_of
from blockforge.swapping.ties import ties_of
from blockforge.swapping.weights import Kept, most_important, with_alternatives
from blockforge.train import Data, evaluate, fit, open_data
from blockforge.train.cutting import cut

BUDGETS = (80, 60, 45, 30)
SCRATCH = (60, 30)
LONG = ("taught", "longer", "scratch")
"""Ways that are trained for longer than one epoch, at the budgets of `SCRATCH` alone."""
EPOCHS = 5
ENOUGH = 20
"""Networks of a parent from which a tau is told."""
RowsOption = Annotated[Path, typer.Option(metavar="FILE.csv", help="The table; what it has is not made again.")]
KeptOption = Annotated[Path, typer.Option(metavar="DIR", help="Where trained parents are kept.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Trainings of each parent.")]
TableOption = Annotated[bool, typer.Option("--table", help="Print the table of what there is.")]
TUNED = {"epochs": 1, "lr": 1e-3, "warmup_epochs": 0.1, "distill": {"temperature": 2.0, "share": 0.5}}


@dataclass(frozen=True)
class Row:
    """A network. `way` is parent, tuned (it fine-tuned), choice, uniform, skip, random0, ..., scratch, taught (from
    scratch, distilled) or longer (the choice, fine-tuned for twice as long).

    Attributes:
        macs: its multiply-adds; 0: this way reaches no such budget.
        expected: KL as the scores of what changed say, pairs too; `kl` measured before fine-tuning, of all together.
        before: top-1 of the images to choose by, before fine-tuning. top1: of the test images, at the end.
        seconds: CPU time of its training; `scoring` of finding what all of a parent's networks are chosen by.
    """

    parent: str
    seed: int
    budget: int
    way: str
    macs: int
    expected: float
    kl: float
    before: float
    top1: float
    seconds: float
    scoring: float

    @property
    def key(self) -> tuple[str, int, int, str]:
        return self.parent, self.seed, self.budget, self.way


def small(name: str, images: int, val: int, test: int) -> Data:
    """A part of a data set in memory, of each class the same share, and the same in every run."""
    data = open_data(name)
    assert data.test is not None

    def part(split: Any, number: int) -> Any:
        return split.only(cut(split.labels(), number / len(split), 0)[1])

    parts = part(data.train, images), part(data.val, val), part(data.test, test)
    return dataclasses.replace(data, train=parts[0], val=parts[1], test=parts[2])


def spec_of(parent: str, channels: int, share: int) -> Architecture:
    """A narrow spec by its name, all its widths scaled to a share of its multiply-adds."""
    whole = bf.compile(load(f"specs/narrow/{parent}.yaml", {"input.channels": channels}))
    scaled = whole if share == 100 else narrower(whole, whole.macs * share // 100)
    assert scaled is not None
    return scaled


def trained(*given: Any, **settings: Any) -> Any:
    """The network that `fit` trained to the end; a signal ends the experiment, which goes on from there."""
    result = fit(*given, **settings)
    if result.signal is not None:
        raise SystemExit(128 + result.signal)
    return result.model


def trained_parent(arch: Architecture, data: Data, seed: int, folder: Path) -> Any:
    """A trained network; it is kept."""
    return trained(arch, data, "micro", epochs=EPOCHS, seed=seed, out=folder).eval()


def top1_of(model: Any, data: Data, split: str = "test") -> float:
    """In percent."""
    return round(evaluate(model, data, recipe=MICRO, split=split).top1, 3)


class Parent:
    """A trained network with what its networks are chosen by."""

    def __init__(self, name: str, arch: Architecture, seed: int, data: Data, scored: int, kept: Path) -> None:
        self.data, self.seed, self.name = data, seed, name
        folder = kept / f"{name}-{seed}"
        started = time.process_time()
        model = trained_parent(arch, data, seed, folder)
        self.seconds = time.process_time() - started
        self.model = by_layers(model)
        self.macs = self.model.arch.macs
        started = time.process_time()
        batches = images_of(self.model, data, folder / "model.safetensors", scored, seed)
        self.found = list(alternatives_of(self.model.arch, self.model.arch.source))
        self.kept: Kept = {**most_important(self.found, importances(self.model, self.found, batches))}
        self.kept = {**self.kept, **settled(self.model, self.found, self.kept, batches)}
        self.batches, self.own = batches, answers(self.model, batches)
        scores = [score(self.model, a, self.kept, self.own, batches, None) for a in self.found]
        self.scores, self.losses = [s.kl for s in scores], Losses.of(self.found, scores)
        self.scoring = time.process_time() - started
        self.ties = ties_of(self.model.arch, self.found)
        self.whole = {a.slot.name: self.model.arch.nodes[a.slot.name].costs.macs for a in self.found}

    def picked(self, budget: int, way: str) -> list[int] | None:
        least = {"macs": self.macs * (1 - budget / 100)}
        if way == "tuned":
            return []
        if way in ("choice", "longer"):
            return self.losses.best(self.found, least, self.ties)
        if way == "skip":
            return skip_alone(self.found, self.scores, least, self.ties)
        if way == "uniform":
            return uniform(self.found, self.whole, least, self.ties)
        return drawn(self.found, least, 1000 * self.seed + 10 * budget + int(way[-1]), self.ties)

    def row(self, budget: int, way: str) -> Row:
        if way in ("scratch", "taught"):
            return self._from_scratch(budget, way)
        chosen = self.picked(budget, way)
        if chosen is None:
            return Row(self.name, self.seed, budget, way, 0, 0, 0, 0, 0, 0, 0)
        picked = [self.found[i] for i in chosen]
        model = with_alternatives(self.model, self.model.arch.source, picked, self.kept).eval()
        kl = compare(self.own, answers(model, self.batches), None).kl
        model.classes = self.model.classes
        before = top1_of(model, self.data, "val")
        more = {"epochs": 2} if way == "longer" else {}
        seconds = self._trained(model, {**MICRO, **TUNED, **more}, self.model)
        expected = self.losses.total(chosen)
        return self._row(budget, way, model, expected, kl, before, seconds)

    def itself(self) -> Row:
        return self._row(100, "parent", self.model, 0, 0, 0, self.seconds)

    def _from_scratch(self, budget: int, way: str) -> Row:
        arch = fitted(self.model.arch, as_budget(f"{self.macs * budget // 100}MACs"), 0.93)
        model = bf.build(arch, seed=self.seed)
        recipe = {**MICRO, **({"distill": TUNED["distill"]} if way == "taught" else {})}
        seconds = self._trained(model, recipe, self.model if way == "taught" else None)
        return self._row(budget, way, model, 0, 0, 0, seconds)

    def _trained(self, model: Any, recipe: Any, teacher: Any) -> float:
        started = time.process_time()
        trained(model, self.data, recipe, seed=self.seed, teacher=teacher)
        return time.process_time() - started

    def _row(self, budget: int, way: str, model: Any, expected: float, kl: float, before: float, took: float) -> Row:
        figures = (
            round(expected, 6),
            round(kl, 6),
            before,
            top1_of(model, self.data),
            round(took, 2),
            round(self.scoring, 2),
        )
        return Row(self.name, self.seed, budget, way, model.arch.macs, *figures)


MICRO: dict[str, Any] = {"extends": "micro", "epochs": EPOCHS}


def wanted(
    parents: list[str], seeds: int, budgets: Sequence[int] = BUDGETS, randoms: int = 2
) -> Iterator[tuple[str, int, int, str]]:
    """All rows of a seed before those of the next; what trains from scratch behind them all."""
    ways = ["choice", "uniform", "skip", *(f"random{i}" for i in range(randoms))]
    for seed in range(seeds):
        for parent in parents:
            yield parent, seed, 100, "parent"
            yield from ((parent, seed, budget, way) for budget in budgets for way in ways)
    scratch = [budget for budget in SCRATCH if budget in budgets]
    for seed in range(seeds):
        for parent in parents:
            yield parent, seed, 100, "tuned"
            yield from ((parent, seed, budget, way) for budget in scratch for way in LONG)


def swap_choices(
    rows: RowsOption,
    kept: KeptOption = Path("runs/parents"),
    parents: Annotated[
        str, typer.Option(metavar="NAME,...", help="Specs of specs/narrow.")
    ] = "swin,mambavision,convnext",
    seeds: SeedsOption = 5,
    data: Annotated[str, typer.Option(help="What to train on.")] = "fashion",
    images: Annotated[int, typer.Option(help="Of them, to train on.")] = 3200,
    val: Annotated[int, typer.Option(help="Of them, to choose by.")] = 1000,
    test: Annotated[int, typer.Option(help="Of them, for the last word.")] = 3000,
    scored: Annotated[int, typer.Option(help="Of those to choose by, images that score.")] = 256,
    channels: Annotated[int, typer.Option(help="Of the images.")] = 1,
    share: Annotated[int, typer.Option(help="Of a spec's multiply-adds, those of the parent: it is narrower.")] = 100,
    budgets: Annotated[str, typer.Option(help="Shares of the parent's.")] = "80,60,45,30",
    randoms: Annotated[int, typer.Option(help="Random combinations of a budget.")] = 2,
    only_table: TableOption = False,
) -> None:
    """Compare a swap's choices with others of the same budget. Stops and goes on at any time.

    \b
    Examples:
      python docs/experiments/swap_choices.py --rows swap.csv --seeds 2
      python docs/experiments/swap_choices.py --rows swap.csv --table
    """
    torch.set_num_threads(1)
    cut_torn_line(rows)
    known = {row.key for row in read_rows(rows, Row)}
    if not only_table:
        opened, now = small(data, images, val, test), None
        shares = [int(text) for text in budgets.split(",")]
        for parent, seed, budget, way in wanted(parents.split(","), seeds, shares, randoms):
            if (parent, seed, budget, way) in known:
                continue
            if now is None or (now.name, now.seed) != (parent, seed):
                now = Parent(parent, spec_of(parent, channels, share), seed, opened, scored, kept)
            row = now.itself() if way == "parent" else now.row(budget, way)
            append_row(rows, row)
            print(f"{parent}, seed {seed}, {budget}%, {way}: {row.top1:.2f}, {row.seconds:.1f} s", flush=True)
    print("\n".join(table(read_rows(rows, Row))))


def table(rows: list[Row]) -> Iterator[str]:
    """The rows in Markdown, each figure with its mean and standard deviation over parents and seeds."""
    known = {row.key: row for row in rows if row.macs}
    pairs = sorted({row.key[:2] for row in rows})
    randoms = sorted({row.way for row in rows if row.way.startswith("random")})
    yield "| budget | the parent | it tuned | random | uniform | skip alone | scratch | taught | longer, over taught |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for budget in sorted({row.budget for row in rows} - {100}, reverse=True):
        own = {pair: known[*pair, budget, "choice"].top1 for pair in pairs if (*pair, budget, "choice") in known}
        whole = [{p: known[*p, 100, way].top1 for p in own if (*p, 100, way) in known} for way in ("parent", "tuned")]
        cells = [_spread([own[pair] - top1 for pair, top1 in reached.items()]) for reached in whole]
        for ways in (randoms, ["uniform"], ["skip"], ["scratch"], ["taught"]):
            others = {pair: [known[key].top1 for way in ways if (key := (*pair, budget, way)) in known] for pair in own}
            leads = [own[pair] - statistics.fmean(top1) for pair, top1 in others.items() if top1]
            wins = sum(own[pair] > value for pair, top1 in others.items() for value in top1)
            cells.append(f"{_spread(leads)}, {wins} of {sum(map(len, others.values()))}" if leads else "-")
        pairs_of = [[known.get((*pair, budget, way)) for way in ("longer", "taught")] for pair in pairs]
        cells.append(_spread([one.top1 - other.top1 for one, other in pairs_of if one and other]))
        yield f"| {budget}% | {' | '.join(cells)} |"
    yield ""
    for name in ("expected", "kl", "macs"):
        sign = 1 if name == "macs" else -1
        taus, within = [], []
        for pair in pairs:
            own_rows = [r for r in known.values() if r.key[:2] == pair and r.way not in ("parent", "tuned", *LONG)]
            if len(own_rows) >= ENOUGH:
                taus.append(kendalltau([sign * getattr(r, name) for r in own_rows], [r.top1 for r in own_rows])[0])
                within.append(_within(own_rows, name, sign))
        text = f"{_spread(taus, '.2f')} over all budgets, {_spread(within, '.2f')} within one" if taus else "-"
        yield f"tau of {name} with top-1 ({len(taus)} times {ENOUGH} networks or more): {text}"
    parents = [known[*pair, 100, "parent"] for pair in pairs if (*pair, 100, "parent") in known]
    yield "scoring, of one training of the parent, %: " + _spread([100 * r.scoring / r.seconds for r in parents], ".0f")
    for way in ("choice", *LONG):
        costs = [100 * r.seconds / known[*r.key[:2], 100, "parent"].seconds for r in known.values() if r.way == way]
        yield f"training of {way}, of one of the parent, %: {_spread(costs, '.0f')}"
    yield "; ".join(f"{r.parent} {r.seed}: {r.top1:.2f} in {r.seconds:.0f} s" for r in parents)


def _within(rows: list[Row], name: str, sign: int) -> float:
    """Kendall's tau of the pairs of networks of one budget alone."""
    agree = total = 0
    for one, other in itertools.combinations(rows, 2):
        if one.budget == other.budget and one.top1 != other.top1:
            total += 1
            better = sign * (getattr(one, name) - getattr(other, name)) * (one.top1 - other.top1)
            agree += (better > 0) - (better < 0)
    return agree / total


def _spread(values: list[float], form: str = "+.2f") -> str:
    if not values:
        return "-"
    sd = f" \u00b1 {statistics.stdev(values):{form.removeprefix('+')}}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{sd}"


if __name__ == "__main__":
    sys.exit(script(swap_choices))

"""A table of what networks of equal cost reach when they are trained, to judge scores by.

Candidates are random networks of a space, fitted to one budget, so that they differ in structure and not in size.
Every one is trained with several seeds. A row is written as soon as its run has ended; the same command goes on
where it was stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from blockforge.cli import script
from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError
from blockforge.files import write_text
from blockforge.search.budget import as_budget
from blockforge.search.equal_cost.trainings import SEEDS, train_all
from blockforge.search.space.load import load_space
from blockforge.search.space.statistics import draw_specs

SHARE = 0.95
"""The least part of the budget that a candidate costs."""


class TruthError(BlockforgeError, ValueError):
    """A table or a file of candidates that cannot be used."""


def draw_candidates(space: str, number: int, budget: str, share: float, seed: int, file: Path) -> None:
    """Write random networks that cost `share` of the budget to all of it: one JSON document, a spec a line.

    Raises: SpecError, SearchError, BudgetError if the space does not give them.
    """
    networks = draw_specs(load_space(space), number, seed, as_budget(budget), share)
    lines = ",\n".join(json.dumps(arch.spec.tree) for arch in networks)

    write_text(file, f"[\n{lines}\n]\n")


def read_candidates(file: Path) -> list[Architecture]:
    """The networks of such a file. Raises: TruthError, SpecError."""
    try:
        trees = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise TruthError(
            f"{file} cannot be read: {e}\n  hint: leave --candidates out, and new ones are drawn"
        ) from None
    return [compile_spec(tree) for tree in trees]


def truth(
    runs: Annotated[Path, typer.Option(metavar="FILE.csv", help="The table; what it has is not trained again.")],
    candidates: Annotated[
        Path, typer.Option(metavar="FILE.json", help="The networks; drawn and written here if there is no such file.")
    ],
    space: Annotated[str, typer.Option(help="A search space, to draw from.")] = "tiny",
    budget: Annotated[str, typer.Option(help="What each network costs, within 5%.")] = "2MMACs",
    number: Annotated[int, typer.Option(min=3, help="Networks to draw.")] = 48,
    data: Annotated[str, typer.Option(help="What to train on.")] = "mnist5k?val=0.5&test=none",
    recipe: Annotated[str, typer.Option(help="A recipe's name or file.")] = "micro",
    epochs: Annotated[int, typer.Option(min=1, help="In place of the recipe's.")] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network.")] = SEEDS,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each trains on one thread.")] = 1,
) -> None:
    """Train networks of equal cost with several seeds: a table to judge scores by. Stops and goes on at any time.

    \b
    Examples:
      python docs/experiments/trained_networks.py --candidates nets.json --runs runs.csv
      python docs/experiments/trained_networks.py --candidates nets.json --runs runs.csv --budget 4MMACs --epochs 10
    """
    if not candidates.exists():
        draw_candidates(space, number, budget, SHARE, 0, candidates)
    networks = read_candidates(candidates)
    for run, done, total in train_all(networks, runs, data, recipe, epochs, seeds, workers):
        print(f"{done}/{total}: {run.name}, seed {run.seed}: {run.top1:.2f}% in {run.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(script(truth))

"""A table of what networks reach when they are trained alike with several seeds.

A row is written as soon as its run has ended; the same call goes on where it was stopped.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge.blocks import registry
from blockforge.compiler import Architecture, compile_spec
from blockforge.files import cut_torn_line
from blockforge.search.equal_cost.kept_rows import append_row, read_rows
from blockforge.search.objectives.network import one_thread, open_cached
from blockforge.train import Data, DivergedError, evaluate, fit, load_recipe, open_data

SEEDS = 3


@dataclass(frozen=True)
class Run:
    """One training run. `top1` in percent and `loss` are those of the last epoch on the images to choose by or to test:
    `data` says which, see `measured_on`."""

    name: str
    hash: str
    seed: int
    data: str
    recipe: str
    epochs: int
    macs: int
    params: int
    depth: int
    top1: float
    loss: float
    seconds: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What a run is not made twice for."""
        return self.hash, self.seed, self.data, self.recipe, self.epochs


def read_runs(file: Path) -> list[Run]:
    """The rows of a table; none if there is no file. Raises: TableError."""
    return read_rows(file, Run)


def measured_on(data: str, test: bool) -> str:
    """What a run's `data` says."""
    return f"{data}, test images" if test else data


def runs_of(file: Path, data: str, recipe: str, epochs: int) -> list[Run]:
    """The rows of trainings that were made alike. Raises: TableError."""
    return [run for run in read_runs(file) if (run.data, run.recipe, run.epochs) == (data, recipe, epochs)]


def train_all(
    candidates: Sequence[Architecture],
    file: Path,
    data: str,
    recipe: str,
    epochs: int,
    seeds: int = SEEDS,
    workers: int = 1,
    test: bool = False,
) -> Iterator[tuple[Run, int, int]]:
    """Train what the table lacks, all candidates with one seed before the next seed.

    Args:
        workers: processes that train; this one alone writes the table.
        test: measure on the test images, which no run is chosen by.
    Gives: each new run, the number of its row, and how many there will be.
    Raises: what `fit` raises; a run that diverged counts with what it had reached. DataError: no test images.
    """
    cut_torn_line(file)
    known = {run.key for run in read_runs(file)}
    wanted = [(arch, seed) for seed in range(seeds) for arch in candidates]
    images = measured_on(data, test)
    missing = [(arch, seed) for arch, seed in wanted if (arch.hash, seed, images, recipe, epochs) not in known]
    jobs = [(arch.spec.tree, data, recipe, epochs, seed, test) for arch, seed in missing]
    open_data(data).part("test" if test else "val"), load_recipe(recipe)  # mistakes are seen here, not in every worker
    for number, run in enumerate(_trained(jobs, workers), len(wanted) - len(missing) + 1):
        append_row(file, run)
        yield run, number, len(wanted)


def _trained(jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Run]:
    if workers == 1:
        yield from itertools.starmap(_train, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers, _begin, [registry.plugins()]) as pool:
        yield from pool.imap_unordered(_train_job, jobs)  # leaving early, for whatever reason, ends the processes


def _begin(plugins: list[str]) -> None:
    """Ctrl-C reaches every process of a terminal: the first ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    registry.load_plugins(plugins)


def _train_job(job: tuple[Any, ...]) -> Run:
    return _train(*job)


def _train(tree: Mapping[str, Any], data: str, recipe: str, epochs: int, seed: int, test: bool) -> Run:
    return train_one(compile_spec(tree), open_cached(data), recipe, epochs, seed, test)


def train_one(arch: Architecture, data: Data, recipe: str, epochs: int, seed: int, test: bool = False) -> Run:
    """Train one network, on one thread."""
    with one_thread():
        try:
            result = fit(arch, data, recipe, epochs=epochs, seed=seed)
        except DivergedError as e:
            result = e.result
        top1 = result.final if result.history else 100 / len(data.classes)
        loss = result.history[-1].val_loss if result.history else math.inf
        if test and result.history:
            measured = evaluate(result.model, data, recipe=recipe, split="test")
            top1, loss = measured.top1, measured.loss
    return Run(
        arch.name, arch.hash, seed, measured_on(data.name, test), recipe, epochs, arch.macs, arch.params, arch.depth,
        round(top1, 3), round(loss, 5), round(result.seconds, 2),
    )  # fmt: skip

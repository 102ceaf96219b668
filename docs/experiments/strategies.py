"""What strategies of search find at equal cost of training, beside random search.

A strategy is a sampler, or one with rungs: `evolution/26` first trains each candidate for 26 steps, and the best third
goes up to the full number. Every run is an ordinary search by `blockforge.search.search`, kept in memory. What
survives is a table of trainings: a run that was cut off is proposed again from its beginning, finds its trainings in
the table, and goes on behind them. A run that the table holds to its end is not proposed again. A network that two
runs ask for is trained once and charged to both.

Cost is counted in passes of one image forward: three for an image of a training step, whose backward counts as two,
and one for an image of the evaluation.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from blockforge.blocks import registry
from blockforge.compiler import Architecture
from blockforge.errors import BlockforgeError, ScoreError
from blockforge.files import cut_torn_line
from blockforge.search import SearchError, search
from blockforge.search.equal_cost.kept_rows import TableError, append_row, read_rows
from blockforge.search.objectives.network import one_thread, open_cached
from blockforge.search.objectives.scores.micro import Micro
from blockforge.search.samplers.registry import check_sampler
from blockforge.search.space.load import load_space
from blockforge.train import DivergedError, load_recipe

BASELINE = "random"
_BACKWARD = 3
"""Passes of an image in a training step."""


@dataclass(frozen=True)
class Setting:
    """What the strategies of a comparison share.

    Attributes:
        budget, share: what each network costs; see `search.fit`.
        steps: of a full training, always with seed 0: then a network has one value, and is trained once.
        trials: full trainings that a run may cost.
        eta: the best 1/eta of a rung go up.
    """

    space: str
    budget: str
    share: float
    data: str
    recipe: str
    steps: int
    trials: int
    eta: int = 3

    @property
    def text(self) -> str:
        """What trainings must agree in to stand in one table. Steps and trials stand in the rows."""
        return f"{self.space}, {self.share:.0%} to 100% of {self.budget}, {self.recipe} on {self.data}"

    def cost(self, steps: int) -> int:
        """Passes of one training of so many steps, and of its evaluation."""
        data = open_cached(self.data)
        batch = min(load_recipe(self.recipe).batch_size, len(data.train))
        return _BACKWARD * steps * batch + len(data.val)


@dataclass(frozen=True)
class Strategy:
    """A sampler, and the steps of the rungs below the full training."""

    name: str
    sampler: str
    rungs: tuple[int, ...] = ()

    def candidates(self, setting: Setting) -> int:
        """How many candidates a run can afford: of each, 1/eta goes up."""
        levels = [*self.rungs, setting.steps]
        each = sum(setting.cost(steps) / setting.eta**i for i, steps in enumerate(levels))
        return max(1, int(setting.trials * setting.cost(setting.steps) / each))


@dataclass(frozen=True)
class Trial:
    """One evaluation in a run. `top1` in percent, NaN where the training diverged.

    Attributes:
        number: of the evaluation in its run, from 0.
        cost: passes that the run has cost with this one.
        seconds: of the training, when it was made; `trained` is 0 where another evaluation had made it before.
    """

    setting: str
    strategy: str
    seed: int
    number: int
    hash: str
    macs: int
    params: int
    depth: int
    steps: int
    cost: int
    top1: float
    loss: float
    seconds: float
    trained: int


def parse_strategies(text: str, steps: int) -> list[Strategy]:
    """`random,evolution/26`. Raises: SearchError."""
    strategies = []
    for name in (part.strip() for part in text.split(",")):
        match = re.fullmatch(r"(\w+)((?:/\d+)*)", name)
        if match is None:
            raise SearchError(f"'{name}' is no strategy\n  hint: a sampler, or one with rungs of steps: evolution/26")
        check_sampler(match[1])
        rungs = tuple(int(n) for n in match[2].split("/")[1:])
        if list(rungs) != sorted({*rungs, 0} - {0}) or (rungs and rungs[-1] >= steps):
            raise SearchError(
                f"the rungs of '{name}' do not rise to {steps} steps\n  hint: evolution/{steps // 3 or 1}"
            )
        strategies.append(Strategy(name, match[1], rungs))
    if len({s.name for s in strategies}) < len(strategies):
        raise SearchError(f"'{text}' names a strategy twice\n  hint: name each once, as in random,tpe")
    return strategies


def run_all(setting: Setting, strategies: Sequence[Strategy], seeds: int, file: Path, workers: int = 1) -> int | None:
    """Make the runs that the table lacks, all strategies with one seed before the next seed.

    Returns: the signal that stopped it, if one did.
    Raises: SearchError, SpecError, BudgetError, DataError, TableError.
    """
    load_space(setting.space), setting.cost(setting.steps)  # mistakes are seen here, and not in every worker
    cut_torn_line(file)
    jobs = [(strategy, seed) for seed in range(seeds) for strategy in strategies]
    if workers > 1:
        return _in_processes(setting, jobs, file, workers)
    for strategy, seed in jobs:
        if (signal := run_one(setting, strategy, seed, file)) is not None:
            return signal
    return None


def run_one(setting: Setting, strategy: Strategy, seed: int, file: Path) -> int | None:
    """One search, as far as the table does not hold it; see `run_all`."""
    run = _Run(setting, strategy, seed, file)
    if run.is_whole():
        return None
    result = search(
        setting.space, budget=setting.budget, fit=setting.share, sampler=strategy.sampler, seed=seed,
        trials=strategy.candidates(setting), objective=_Trained(run, setting.steps),
        rungs=[_Trained(run, steps) for steps in strategy.rungs], eta=setting.eta,
    )  # fmt: skip
    if run.error is not None:
        raise run.error
    return result.signal


class _Trained:
    """`micro` with so many steps, looked up where it was made before."""

    name: ClassVar[str] = "micro"

    def __init__(self, run: _Run, steps: int) -> None:
        self.run, self.steps, self.cost = run, steps, float(steps)

    def __call__(self, arch: Architecture) -> dict[str, float]:
        trial = self.run.evaluate(arch, self.steps)
        if math.isnan(trial.top1):
            raise ScoreError("its training diverged")
        return {self.name: trial.top1, "loss": trial.loss}


class _Run:
    """What one run has asked for so far.

    Attributes:
        error: why the run cannot go on; a search keeps what an objective raises with the trial.
    """

    def __init__(self, setting: Setting, strategy: Strategy, seed: int, file: Path) -> None:
        self.setting, self.strategy, self.seed, self.file = setting, strategy, seed, file
        self.number = self.cost = 0
        self.error: Exception | None = None

    def is_whole(self) -> bool:
        """Whether the table holds a run of which no further evaluation is within the costs."""
        costs = [t.cost for t in read_trials(self.file, self.setting) if self.is_in(t)]
        cheapest = self.setting.cost(min([*self.strategy.rungs, self.setting.steps]))
        return max(costs, default=0) + cheapest > self.setting.trials * self.setting.cost(self.setting.steps)

    def is_in(self, trial: Trial) -> bool:
        return (trial.strategy, trial.seed) == (self.strategy.name, self.seed)

    def evaluate(self, arch: Architecture, steps: int) -> Trial:
        if self.error is not None:
            raise self.error
        try:
            trial = self._evaluate(arch, steps)
        except Exception as e:
            self.error = e
            raise
        self.number, self.cost = self.number + 1, trial.cost
        return trial

    def _evaluate(self, arch: Architecture, steps: int) -> Trial:
        end_as_orphan()
        known = read_trials(self.file, self.setting)
        place = (self.strategy.name, self.seed, self.number)
        earlier = next((t for t in known if self.is_in(t) and t.number == self.number), None)
        if earlier is not None:
            if (earlier.hash, earlier.steps) != (arch.hash, steps):
                text = f"{self.file} holds another run of {place[0]} with seed {place[1]}"
                raise TableError(f"{text}: proposals have changed since\n  hint: write to another file")
            return earlier
        same = next((t for t in known if (t.hash, t.steps) == (arch.hash, steps)), None)
        trial = same or train(self.setting, arch, steps)
        cost = self.cost + self.setting.cost(steps)
        trial = replace(trial, strategy=place[0], seed=place[1], number=place[2], cost=cost, trained=int(same is None))
        append_row(self.file, trial)
        _show(trial, self.setting)
        return trial


def train(setting: Setting, arch: Architecture, steps: int) -> Trial:
    """Train one network, on one thread. Its place in a run is not filled in."""
    began, top1, loss = time.perf_counter(), math.nan, math.inf
    with one_thread():
        try:
            figures = Micro(steps=steps, data=setting.data, recipe=setting.recipe, seed=0)(arch)
            top1, loss = round(figures["micro"], 3), round(figures["loss"], 5)
        except DivergedError:
            pass
    seconds = round(time.perf_counter() - began, 2)
    costs = arch.macs, arch.params, arch.depth
    return Trial(setting.text, "", 0, 0, arch.hash, *costs, steps, 0, top1, loss, seconds, 1)


def read_trials(file: Path, setting: Setting) -> list[Trial]:
    """The rows of a table that belong to this setting. Raises: TableError."""
    return [t for t in read_rows(file, Trial) if t.setting == setting.text]


def _show(trial: Trial, setting: Setting) -> None:
    spent = trial.cost / setting.cost(setting.steps)
    what = f"{trial.seconds:.1f} s" if trial.trained else "known"
    place = f"{trial.strategy}, seed {trial.seed}: {spent:.1f} of {setting.trials}"
    print(f"{place}: {trial.top1:.2f}% after {trial.steps} steps ({what})", flush=True)


def _in_processes(setting: Setting, jobs: list[tuple[Strategy, int]], file: Path, workers: int) -> int | None:
    """Each process takes the next job that nobody has taken."""
    context = multiprocessing.get_context("spawn")
    next_job = context.Value("i", 0)
    crew = [
        context.Process(target=_work, args=(setting, jobs, file, next_job, registry.plugins())) for _ in range(workers)
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    codes = [process.exitcode or 0 for process in crew]
    if any(code and code <= 128 for code in codes):
        raise SearchError("a worker failed: see above\n  hint: the same command goes on; --workers 1 shows more")
    return max(codes) - 128 if any(codes) else None


def _work(setting: Setting, jobs: list[tuple[Strategy, int]], file: Path, next_job: Any, plugins: list[str]) -> None:
    registry.load_plugins(plugins)
    while True:
        with next_job.get_lock():
            number, next_job.value = next_job.value, next_job.value + 1
        if number >= len(jobs):
            return
        strategy, seed = jobs[number]
        try:
            signal = run_one(setting, strategy, seed, file)
        except BlockforgeError as e:
            print(f"error: {e}", file=sys.stderr, flush=True)
            sys.exit(e.exit_code)
        if signal is not None:
            sys.exit(128 + signal)


def end_as_orphan() -> None:
    """A worker whose parent was killed ends too."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        sys.exit(1)

"""Real trainings to replay searches on, in seconds: a packaged table as one object, for whoever writes samplers.

import blockforge as bf
table = bf.benchmark("tiny-fashion")
table.value(0, steps=320)                       # top-1 of network 0 in percent
table.replay(optuna.samplers.TPESampler(seed=0), trials=20)
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import SearchError, SpecError, did_you_mean
from blockforge.search.fidelity.table import Network, Store, Table, parse
from blockforge.search.screen.features import features
from blockforge.search.screen.predictor import Predictor, likeliest
from blockforge.search.screen.screen import FEWEST
from blockforge.search.space.fit import fit
from blockforge.search.space.parameters import distribution_of, label_of, scalar_of
from blockforge.search.study.storage import quiet_optuna
from blockforge.spec import Hole, Spec, fill, holes

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

_FOLDER, _FORM = "blockforge.search.tables", ".jsonl"


def benchmark(name: str | os.PathLike[str]) -> Benchmark:
    """A packaged table of trainings by its name, or a file of `blockforge bench fidelity`.

    Raises: SearchError if there is none, or nothing whole in it.
    """
    text = os.fspath(name)
    if text.endswith(_FORM):
        table = Store(Path(text)).read()
        if table is None:
            raise SearchError(f"there are no trainings in {text}\n  hint: blockforge bench fidelity makes them")
        return Benchmark(Path(text).stem, table)
    if text not in (known := list_benchmarks()):
        hint = did_you_mean(text, known, what="tables") + f"; a file needs its {_FORM}"
        raise SearchError(f"no table of trainings is called '{text[:80]}'\n  hint: {hint}")
    return Benchmark(text, parse((files(_FOLDER) / f"{text}{_FORM}").read_text(encoding="utf-8"), text))


def list_benchmarks() -> list[str]:
    """Names of the packaged tables."""
    return sorted(f.name.removesuffix(_FORM) for f in files(_FOLDER).iterdir() if f.name.endswith(_FORM))


class Benchmark:
    """What networks of one space reach when they are trained for so many steps, measured and not modelled.

    Accuracies are percent of the images to choose by; no test image was seen. `print` it to see how much it holds.

    Attributes:
        name: its own.
        space: the search space that its networks are points of.
        steps: lengths of the trainings, the shortest first.
        networks: by number, those that were trained at each of these lengths.
        table: all that the file says: settings, versions, every training with its losses and times.
    Raises: SearchError if no network was.
    """

    def __init__(self, name: str, table: Table) -> None:
        self.name, self.table = name, table
        self._known_figures: dict[int, dict[str, float]] = {}
        self.space: Spec = table.space
        self.steps: tuple[int, ...] = tuple(sorted({steps for _, steps, _ in table.trainings}))
        self._top1 = {key: t.top1 for key, t in table.trainings.items() if t.top1 is not None}
        self.networks: dict[int, Network] = {
            n: line for n, line in sorted(table.networks.items()) if all((n, s, 0) in self._top1 for s in self.steps)
        }
        if not self.networks:
            raise SearchError(f"no network of '{name}' was trained at every length\n  hint: its command goes on")

    def __repr__(self) -> str:
        setting, seeds = self.table.setting, [self.seeds(n) for n in self.networks]
        lengths = ", ".join(map(str, self.steps))
        again = (
            f", {sum(s > 1 for s in seeds)} of them with up to {max(seeds)} seeds" if max(seeds) > 1 else ", one seed"
        )
        what = f"{len(self.networks)} networks of '{self.space.name}' at {setting.fit:.0%} to 100% of {setting.budget}"
        return f"{self.name}: {what}, each trained on {setting.data} for {lengths} steps ({setting.recipe}){again}"

    def __len__(self) -> int:
        return len(self.networks)

    def seeds(self, network: int, steps: int | None = None) -> int:
        """How many trainings of a network there are, of one length; None: of the longest."""
        length = self._length(steps)
        return sum(n == network and s == length for n, s, _ in self._top1)

    def value(self, network: int, steps: int | None = None, seed: int | None = None) -> float:
        """Top-1 of a network in percent.

        Args:
            steps: of the training; None: the longest.
            seed: 0, 1, ...: which of its trainings; None: the mean of all.
        Raises: SearchError for what was not trained.
        """
        length = self._length(steps)
        accuracies = [v for (n, s, repeat), v in self._top1.items()
                      if (n, s) == (network, length) and seed in (None, repeat)]  # fmt: skip
        if network not in self.networks or not accuracies:
            have = f"it has {self.seeds(network, length)} seeds" if network in self.networks else self._numbers()
            what = f"network {network}" + (f" with seed {seed}" if seed is not None else "")
            raise SearchError(f"'{self.name}' holds no training of {what} for {length} steps\n  hint: {have}")
        return statistics.fmean(accuracies)

    def evaluate(self, answers: Mapping[str, Any], steps: int | None = None, seed: int | None = None) -> float:
        """`value` of the network that these answers to the space's holes make, its widths fitted as all were.

        Raises: SearchError if that network is not in the table: `nearest` names the one that is most like it.
        """
        network = self.find(answers)
        if network is None:
            hint = "value(nearest(answers)) is that of the network most like it"
            raise SearchError(f"'{self.name}' does not hold the network of these answers\n  hint: {hint}")
        return self.value(network, steps, seed)

    def find(self, answers: Mapping[str, Any]) -> int | None:
        """The number of the network that answers make; None: it is not here. Raises: SpecError, BudgetError."""
        same = next((n for n, line in self.networks.items() if line.answers == answers), None)
        if same is not None:
            return same
        setting = self.table.setting
        made = fit(compile_spec(fill(self.space, answers)), setting.budget, setting.fit).hash
        return next((n for n, line in self.networks.items() if line.hash == made), None)

    def nearest(self, answers: Mapping[str, Any], among: Iterable[int] | None = None) -> int:
        """The network whose answers are most like these; of several the first.

        Args:
            among: numbers of networks; None: all.
        """
        return min(self.networks if among is None else sorted(among), key=lambda n: self.distance(answers, n))

    def distance(self, answers: Mapping[str, Any], network: int) -> float:
        """How far answers are from a network's, 0 to 1: the mean over the holes that either asks for. Of a choice, or
        of a hole that one of them has not, 0 or 1; of a number the share of its range."""
        own = self.networks[network].answers
        names = {**own, **answers}
        return statistics.fmean(self._apart(name, answers, own) for name in names) if names else 0.0

    @property
    def best(self) -> int:
        """The network with the highest mean top-1 after the longest training. That of one with a single seed is partly
        luck."""
        return max(self.networks, key=self.value)

    def architecture(self, network: int) -> Architecture:
        """A network, compiled. Raises: SearchError if this version makes another one of its line."""
        return self.table.architecture(network)

    def objective(self, steps: int | None = None, seed: int | None = None) -> Callable[[Trial], float]:
        """An objective for `study.optimize`: what the network most like the proposal reached; its number is noted as
        the trial's user attribute `network`. Proposals stay as they are and networks come again: see `replay`."""

        def evaluated(trial: Trial) -> float:
            network = self.nearest(self.suggest(trial))
            trial.set_user_attr("network", network)
            return self.value(network, steps, seed)

        return evaluated

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Answers to the space's holes from a trial of Optuna's, as far as they are asked for."""
        answers: dict[str, Any] = {}

        def ask(hole: Hole) -> Any:
            if hole.name not in answers:
                answers[hole.name] = label_of(hole, _suggested(trial, hole))
            return answers[hole.name]

        with contextlib.suppress(SpecError):  # no network, but the answers are like those of some
            compile_spec(self.space, ask=ask)
        return answers

    def replay(
        self,
        sampler: BaseSampler,
        trials: int,
        steps: int | None = None,
        seed: int | None = None,
        screen: int | None = None,
    ) -> list[int]:
        """The numbers of the networks that a search with this sampler would have trained, in their order.

        For each proposal the network most like it that was not yet taken is trained, and the sampler is told of that
        network's own answers and its value. Equal to random choice for a sampler that learns nothing.

        Args:
            trials: how many; at most all networks.
            screen: of the networks of so many proposals the one is taken that a predictor likes best, as in a search.
        """
        import optuna

        with quiet_optuna():
            study = optuna.create_study(direction="maximize", sampler=sampler)
        left = set(self.networks)
        taken: list[int] = []
        for _ in range(min(trials, len(left))):
            pool = []
            for _ in range(screen or 1 if len(taken) >= FEWEST else 1):
                trial = study.ask()
                pool.append(self.nearest(self.suggest(trial), left))
                study.tell(trial, state=optuna.trial.TrialState.FAIL)  # what is told of is the network itself
            network = self._likeliest(list(dict.fromkeys(pool)), taken, steps, seed)
            study.add_trial(self._as_trial(network, self.value(network, steps, seed)))
            left.remove(network)
            taken.append(network)
        return taken

    def _likeliest(self, pool: list[int], taken: list[int], steps: int | None, seed: int | None) -> int:
        """Of several networks that which a predictor likes best, which has learnt from those that were taken."""
        if len(pool) == 1:
            return pool[0]
        values = [self.value(n, steps, seed) for n in taken]
        places = Predictor([self._figures(n) for n in taken], values).predict([self._figures(n) for n in pool])
        return pool[likeliest(places, seed=0)]

    def _figures(self, network: int) -> dict[str, float]:
        if network not in self._known_figures:
            self._known_figures[network] = features(self.architecture(network))
        return self._known_figures[network]

    def _as_trial(self, network: int, value: float) -> Any:
        from optuna.trial import create_trial

        answers = {name: answer for name, answer in self.networks[network].answers.items() if name in self._holes}
        params = {name: scalar_of(self._holes[name], answer) for name, answer in answers.items()}
        ranges = {name: distribution_of(self._holes[name]) for name in answers}
        return create_trial(params=params, distributions=ranges, value=value, user_attrs={"network": network})

    @cached_property
    def _holes(self) -> dict[str, Hole]:
        return holes(self.space)

    def _apart(self, name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
        if name not in a or name not in b:
            return 1.0
        hole = self._holes.get(name)
        if hole is None or hole.kind == "choice" or hole.high == hole.low:
            return float(a[name] != b[name])
        return min(1.0, abs(a[name] - b[name]) / (hole.high - hole.low))

    def _length(self, steps: int | None) -> int:
        if steps is not None and steps not in self.steps:
            lengths = ", ".join(map(str, self.steps))
            raise SearchError(f"'{self.name}' holds no trainings of {steps} steps\n  hint: {lengths}")
        return self.steps[-1] if steps is None else steps

    def _numbers(self) -> str:
        return f"networks are {min(self.networks)} to {max(self.networks)}"


def _suggested(trial: Trial, hole: Hole) -> Any:
    """What Optuna keeps for a hole."""
    if hole.kind == "int":
        return trial.suggest_int(hole.name, int(hole.low), int(hole.high), step=hole.step)
    if hole.kind in ("float", "log"):
        return trial.suggest_float(hole.name, hole.low, hole.high, log=hole.kind == "log")
    return trial.suggest_categorical(hole.name, distribution_of(hole).choices)  # type: ignore[attr-defined]

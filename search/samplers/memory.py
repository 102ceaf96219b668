"""What a sampler remembers of a study: every trial, read once, in the form that proposals need.

It works with any study of Optuna's. In one of ours, equal networks count once, refused candidates are known by how far
they miss, and values of different rungs are not compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.optuna_private import Groups
from blockforge.search.space.tree import Tree
from blockforge.search.study import pareto
from blockforge.search.study.history import ENOUGH
from blockforge.search.study.records import WORKER, verdict_of

ELITE = 48
_RECENT, _REFUSED = 112, 32


@dataclass(frozen=True, eq=False)
class Seen:
    """A trial, with what TPE asks for again and again."""

    trial: FrozenTrial
    number: int
    state: TrialState
    values: list[float] | None
    constraints: dict[str, float]
    internal: dict[str, float]
    intermediate_values: dict[int, float] = field(default_factory=dict)

    @property
    def value(self) -> float | None:
        """The only value."""
        return self.values[0] if self.values else None


def see(trial: FrozenTrial) -> Seen:
    """A trial as TPE sees it."""
    internal = {n: trial.distributions[n].to_internal_repr(v) for n, v in trial.params.items()}
    costs, steps = trial.constraints, trial.intermediate_values
    return Seen(trial, trial.number, trial.state, trial.values, costs, internal, steps)


class Memory:
    """The trials of a study.

    Attributes:
        interrupted: how many trials do not count: what comes after them is as it would be without the stop.
        running: trials under way, by number.
        tree: the candidates proposed so far; tells when there is none left.
        groups: which holes occur together.
    """

    def __init__(self, directions: Sequence[StudyDirection]) -> None:
        self.signs = np.asarray([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in directions])
        self.interrupted = 0
        self.running: dict[int, FrozenTrial] = {}
        self.tree, self.groups = Tree(), Groups()
        self._trials: dict[int, FrozenTrial] = {}
        self._open: list[int] = []
        self._met: set[int] = set()
        self._scored: dict[int, list[int]] = defaultdict(list)
        self._told: dict[int, list[int]] = defaultdict(list)
        self._elites: dict[int, list[int]] = defaultdict(list)
        self._refused: list[int] = []
        self._nearest: list[int] = []
        self._seen: dict[int, Seen] = {}
        self._read = 0

    def sync(self, study: Study) -> None:
        """Read what has changed."""
        trials = study.get_trials(deepcopy=False)
        self._read = min(self._read, len(trials))
        changed = [n for n in self._open if n < self._read] + list(range(self._read, len(trials)))
        self._read, self._open, self.running = len(trials), [], {}
        for number in changed:
            trial = trials[number]
            whole = trial.state.is_finished() or WORKER in trial.user_attrs
            if whole and number not in self._met:  # one of plain Optuna gets its holes one after the other
                self._met.add(number)
                self.tree.add(trial)
            if trial.state.is_finished():
                self._add(trial)
                continue
            self._open.append(number)
            if trial.state == TrialState.RUNNING:
                self.running[number] = trial

    def _add(self, trial: FrozenTrial) -> None:
        verdict, rung = verdict_of(trial), trial.user_attrs.get("rung", 0)
        self._trials[trial.number] = trial
        if verdict == "interrupted":
            self.interrupted += 1
            return
        if trial.state in (TrialState.PRUNED, TrialState.COMPLETE):
            self._seen[trial.number] = see(trial)
            self.groups.add(trial)
        if trial.state == TrialState.COMPLETE or verdict == "pruned":
            self._told[rung].append(trial.number)
        elif trial.state == TrialState.PRUNED:
            self._refused.append(trial.number)
            self._nearest = sorted([*self._nearest, trial.number], key=self._violation)[:_REFUSED]
        if verdict == "scored":
            self._scored[rung].append(trial.number)
            self._elites[rung] = self.best_first([*self._elites[rung], trial.number])[:ELITE]

    def sample(self, asked: int) -> list[Seen]:
        """The trials that a model-based sampler learns from, at most a few hundred.

        The best, the latest, the refused ones that are nearest to the budget, and what is running, but for the trial
        `asked`. A sampler that saw all of them would take longer with each; TPE's good side is never more than 25
        trials, all of them among the best.
        """
        told = self._told[self.level]
        chosen = set(self._elites[self.level]) | set(told[-_RECENT:])
        chosen |= set(self._nearest) | set(self._refused[-_REFUSED:])
        return [self._seen[n] for n in sorted(chosen)] + [see(t) for n, t in sorted(self.running.items()) if n != asked]

    @property
    def level(self) -> int:
        """The rung whose values samplers learn from: the highest one with enough of them."""
        return max((rung for rung, scored in self._scored.items() if len(scored) >= ENOUGH), default=0)

    def latest(self, n: int) -> list[int]:
        """The last scored candidates of that rung."""
        return self._scored[self.level][-n:]

    def elite(self, n: int) -> list[int]:
        """Its best candidates; where they are fewer, the refused ones nearest to the budget stand behind them."""
        best = self._elites[self.level][:n]
        return best + self._nearest[: n - len(best)]

    def params(self, number: int) -> Mapping[str, object]:
        """What Optuna keeps for the holes of a trial."""
        return self._trials[number].params

    def best_first(self, numbers: Sequence[int]) -> list[int]:
        """Scored trials from best to worst."""
        values = [self._trials[number].values for number in numbers]
        losses = -np.asarray(values, float).reshape(len(numbers), len(self.signs)) * self.signs
        return [numbers[i] for i in pareto.order(losses)]

    def _violation(self, number: int) -> float:
        return float(np.sum([by for by in self._trials[number].constraints.values() if by > 0]))

"""What a worker knows of a study: every trial, read once, in the form that claims and rungs need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.space.tree import Tree
from blockforge.search.study import pareto
from blockforge.search.study.records import (
    EVALUATED,
    TrialRecord,
    candidate_name,
    known_of_arch,
    losses,
    read_trial,
)
from blockforge.spec import Hole

ENOUGH = 20
"""Evaluated candidates on a rung from which on samplers learn from it and no longer from the one below."""


class History:
    """The trials of a study.

    Attributes:
        records: finished trials by number.
        running: trials that somebody is evaluating, by number.
        first: what is evaluated once (a candidate on a rung) -> the trial that did.
        rungs: for each rung its scored trials, without duplicates, in the order in which they were seen.
        retries: interrupted trials that nobody has tried again yet.
        promoted: for each rung the trials that have gone up from it.
        started: names of the candidates to start from that were proposed.
        log: finished trials in the order in which they were seen, without interrupted ones.
        tree: the candidates proposed so far; tells when there is none left.
    """

    def __init__(self, study: Study, holes: Mapping[str, Hole], signs: Sequence[float], rungs: int = 1) -> None:
        self.study, self.holes, self.signs = study, holes, signs
        self.records: dict[int, TrialRecord] = {}
        self.running: dict[int, FrozenTrial] = {}
        self.first: dict[tuple[str | None, int], TrialRecord] = {}
        self.rungs: list[list[TrialRecord]] = [[] for _ in range(rungs)]
        self.retries: dict[int, FrozenTrial] = {}
        self.promoted: list[set[int]] = [set() for _ in range(rungs)]
        self.started: set[str] = set()
        self.log: list[TrialRecord] = []
        self.tree = Tree()
        self.evaluated = 0
        self._trials: dict[int, FrozenTrial] = {}
        self._read = 0

    def sync(self) -> list[TrialRecord]:
        """Read what has changed; the trials that have ended since."""
        trials = self.study.get_trials(deepcopy=False)
        changed = [*self.running, *range(self._read, len(trials))]
        self._read = len(trials)
        ended = []
        for number in changed:
            trial = trials[number]
            if number not in self.running:
                self._meet(trial)
            if trial.state.is_finished():
                self.running.pop(number, None)
                ended.append(self._add(trial))
            elif trial.state == TrialState.RUNNING:
                self.running[number] = trial
        return ended

    def claimed(self, key: tuple[str | None, int], before: int | None = None) -> int | None:
        """The trial that evaluates, or evaluated, a candidate on a rung, if its number is below `before`."""
        known = self.first.get(key)
        numbers = [known.number] if known is not None else []
        for number, trial in self.running.items():
            known_of = known_of_arch(trial)
            own = candidate_name(known_of.get("hash"), known_of.get("recipe"))
            if (own, trial.user_attrs.get("rung", 0)) == key:
                numbers.append(number)
        claimant = min(numbers, default=None)
        return None if claimant is None or (before is not None and claimant >= before) else claimant

    @property
    def level(self) -> int:
        """The rung whose values are learnt from: the highest one with enough of them. Those of two do not compare."""
        return max((i for i, rung in enumerate(self.rungs) if len(rung) >= ENOUGH), default=0)

    def params(self, record: TrialRecord) -> Mapping[str, object]:
        """What Optuna keeps for the holes of a trial."""
        return self._trials[record.number].params

    def better(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The records from best to worst."""
        return [records[i] for i in pareto.order(losses(records, self.signs))]

    def _meet(self, trial: FrozenTrial) -> None:
        """A trial that is new, in whatever state."""
        attrs = trial.user_attrs
        self.retries.pop(attrs.get("retry_of", -1), None)
        if "promoted_from" in attrs:
            self.promoted[attrs["rung"] - 1].add(attrs["promoted_from"])
        if "start" in attrs:
            self.started.add(attrs["start"])
        self.tree.add(trial)

    def _add(self, trial: FrozenTrial) -> TrialRecord:
        record = read_trial(trial, self.holes)
        self.records[record.number] = record
        self._trials[record.number] = trial
        if record.state == "interrupted":
            self.retries[record.number] = trial
            return record
        self.log.append(record)
        if record.state in EVALUATED:
            self.evaluated += record.rung == 0
            known = self.first.get(record.key)
            if known is None or record.number < known.number:
                self.first[record.key] = record
        if record.state == "scored":
            self.rungs[record.rung].append(record)
        return record

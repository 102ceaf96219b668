"""A worker at a study: it proposes a candidate, checks it on the compiled graph, evaluates it, tells the outcome.

Every worker runs this, alone or beside others, on whatever storage. They share nothing but the study:

- A candidate is compiled before the storage hears of it. It is then written at once, with its network's hash and
  its worker's name: trials have their numbers from the storage, so of two that evaluate one network the lower number
  goes on, and the other becomes a duplicate. Whatever the storage, that needs no lock of ours.
- What is to be done next follows from the trials alone: first what was interrupted, then the candidates to start
  from, then promotions, then fresh proposals. There is no queue that a crash could leave half written.
- A trial's end is one user attribute, `outcome`, with its values inside. If the process dies before the state
  follows, recovery tells it.

See `objective` for what is measured, `plan` for the settings, `lease` for who is alive.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from blockforge.errors import BudgetError, SearchError
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.budget import smallest_candidate, too_small
from blockforge.search.samplers.choose import Choose, fixed, uniform
from blockforge.search.samplers.registry import goes_through_all, make_pruner, make_sampler
from blockforge.search.screen.screen import Screen
from blockforge.search.space.parameters import scalar_of
from blockforge.search.study.config import MAX_IDLE
from blockforge.search.study.history import History
from blockforge.search.study.lease import Lease, Watch
from blockforge.search.study.pause import Pause
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import (
    EVALUATED,
    GUESS,
    LABELS,
    OUTCOME,
    RANDOM,
    REASON,
    WORKER,
    TrialRecord,
    final_state,
)
from blockforge.search.study.trials import close_trial, flush, make_trial, recover
from blockforge.search.workers.checks import Candidate, compiled, held_against, keeps_counted
from blockforge.search.workers.draft import Draft
from blockforge.search.workers.evaluation import MAX_TRACE, Evaluation, late
from blockforge.search.workers.limits import Limits
from blockforge.search.workers.mirror import Mirror
from blockforge.search.workers.proposals import Proposals
from blockforge.search.workers.rungs import next_promotion
from blockforge.search.workers.trial_progress import Reporter
from blockforge.search.workers.watchdog import stacks
from blockforge.units import DEPLOYED, TRAINING

_STUCK = 10
"""After so many duplicates in a row the sampler is stuck, and the next proposal is a random one."""
_SCARCE, _HOPELESS = 30, 150
"""So many candidates without one to evaluate, and proposals begin at the smallest one; so many at the start, and a
search ends."""
_LOOK = 2.0
"""Seconds between looks for dead workers."""


def reports_of(plan: Plan) -> tuple[StudyDirection, int] | None:
    """What a pruner of a plan goes by: the direction of what is reported, and its place among the values of a trial."""
    place = next((i for i, measure in enumerate(plan.objectives) if measure.reports), 0)
    larger = plan.objectives[place].direction == "maximize"
    return (StudyDirection.MAXIMIZE if larger else StudyDirection.MINIMIZE), 0 if plan.weights else place


@dataclass
class Task:
    """Where the next candidate comes from: given values, or none for a fresh one."""

    params: Mapping[str, Any] | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def rung(self) -> int:
        return self.origin.get("rung", 0)


class Session:
    """A worker of a study.

    Args:
        stream: tells workers of one seed apart; 0 is the only one, or the first.
        folder: for what evaluations leave behind; None: nothing stays.
        watch: who is alive, where workers say so with another study; None: with this one.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        lease: Lease,
        interrupts: EvaluationInterrupts,
        stream: int = 0,
        folder: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.plan, self.study, self.lease = plan, study, lease
        self.interrupts, self.stream, self.folder = interrupts, stream, folder
        self.holes = plan.holes
        self.history = History(study, self.holes, plan.signs, len(plan.levels))
        self.watch = watch or Watch(study, lease.seconds, lease.steady)
        sampler = make_sampler(plan.config.proposals.sampler, plan.seed, stream)
        pruner = make_pruner(plan.config.proposals.pruner)
        self.proposals = Proposals(study, sampler, pruner, self._is_shown if plan.rungs else None, reports_of(plan))
        self.mirror = Mirror(plan.config.goal.checkpoints) if plan.config.goal.checkpoints is not None else None
        self.evaluation = Evaluation(plan, study, self.proposals, interrupts, folder, self.mirror)
        self.goes_through_all = goes_through_all(sampler)
        self.screen = Screen(plan, self.history) if plan.screen is not None else None
        self._under_way: int | None = None
        self._smallest: dict[str, Any] | None = None
        self._looked = float("-inf")
        self.recover()
        self.history.sync()

    def _is_shown(self, trial: FrozenTrial) -> bool:
        """Whether a sampler that knows no rungs may see a trial: values of different rungs are not comparable."""
        return trial.state != TrialState.COMPLETE or trial.user_attrs.get("rung", 0) == self.history.level

    @property
    def records(self) -> list[TrialRecord]:
        """Finished trials by number."""
        return [r for _, r in sorted(self.history.records.items())]

    def run(self, reporter: Reporter, max_idle: int = MAX_IDLE) -> str | None:
        """Go on until the plan's target is reached; why it ended before, if it did.

        Raises: BudgetError or SearchError if not a single candidate could be evaluated.
        """
        idle: list[TrialRecord] = []
        limits, pause = Limits(self.study, self.plan), Pause()
        while self.interrupts.received is None:
            self.history.sync()
            if (why := limits.reached(self.history.records.values())) is not None:
                if not self.history.running:
                    return why
                self.recover()
                pause.wait()  # what others evaluate counts as well
                continue
            task = self._next()
            if task is None:
                if not self.history.running:
                    left = self.history.evaluated < self.plan.target
                    return "every candidate of the space was proposed" if left else None
                pause.wait()  # what others evaluate may come back, or go up
                continue
            pause.over()
            record = self.step(task)
            if record is None:
                continue
            reporter.update(record)
            idle = [] if record.state in EVALUATED else [*idle, record]
            if len(idle) >= (max_idle if self.history.evaluated else min(max_idle, _HOPELESS)):
                return self._exhausted(idle)
        return "it was interrupted"

    def recover(self) -> None:
        """Free the trials of dead workers, every now and then."""
        if time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            recover(self.study, self.watch.dead)

    def _next(self) -> Task | None:
        """What to do now; None: nothing, or nothing before others have finished."""
        self.recover()
        self.history.sync()
        if self.history.retries:
            return self._retry(min(self.history.retries))
        for name, params in self.plan.starts.items():
            if name not in self.history.started:
                middle = self.plan.recipe.middle() if self.plan.recipe is not None else {}
                return Task({**{n: scalar_of(self.holes[n], v) for n, v in middle.items()}, **params}, {"start": name})
        exhausted = self.history.tree.exhausted or self.proposals.over
        fresh = self.history.evaluated < self.plan.target and not exhausted
        if self.plan.rungs and (best := next_promotion(self.history, self.plan.eta, last=not fresh)):
            return Task(self.history.params(best), {"rung": best.rung + 1, "promoted_from": best.number})
        under_way = sum(t.user_attrs.get("rung", 0) == 0 for t in self.history.running.values())
        return Task() if fresh and self.history.evaluated + under_way < self.plan.target else None

    def _retry(self, number: int) -> Task:
        """To try an interrupted candidate again."""
        trial, kept = self.history.retries[number], ("start", "rung", "promoted_from", RANDOM)
        died = OUTCOME not in trial.user_attrs
        origin = {k: v for k, v in trial.user_attrs.items() if k in kept}
        return Task(trial.params, origin | {"retry_of": number, "retries": self.history.records[number].retries + died})

    def step(self, task: Task) -> TrialRecord | None:
        """One trial, from the proposal to its outcome; None if another worker took it over."""
        candidate = self._candidate(task)
        if candidate.outcome is None:
            candidate = held_against(candidate, self.plan.budget)
        if candidate.outcome is not None:
            return self._make(candidate, task, candidate.outcome)
        draft = candidate.draft
        if self.history.running:
            self.history.sync()
        key = (candidate.name, task.rung)
        if (first := self.history.claimed(key)) is not None:
            return self._make(candidate, task, self._duplicate(first))
        for waiting in self.history.retries if "retry_of" not in task.origin else ():
            if self.history.records[waiting].key == key:  # proposed anew: that counts as the next attempt
                task = self._retry(waiting)
                break
        noted = {**({RANDOM: True} if draft.random else {}), **({GUESS: draft.guess} if draft.guess else {})}
        own = {**candidate.attrs, WORKER: self.lease.id, **task.origin, **noted}
        notes = self.proposals.notes(candidate.limits, TrialState.RUNNING, None)
        trial = draft.trial(TrialState.RUNNING, user_attrs=own, system_attrs=notes, constraints=candidate.limits)
        number = make_trial(self.study, trial)
        self.proposals.written(number)
        self.history.sync()
        if (first := self.history.claimed(key, before=number)) is not None:
            return self._close(number, self._duplicate(first))
        self._under_way = number
        return self._close(number, self.evaluation(candidate, number, task.rung), evaluated=True)

    def _candidate(self, task: Task) -> Candidate:
        """What is to be evaluated: a proposal, or of several that which is thought to be the best."""
        first = self._proposed(task)
        if self.screen is None or task.params is not None or not self.screen.ready:
            return first
        pool = [first, *(self._proposed(task, variant) for variant in range(1, self.plan.screen or 1))]
        fit = {c.name: c for c in reversed(pool) if c.arch is not None and self._is_new(c)}
        if not fit:  # what is wrong with the first is kept, and the sampler learns from it
            self.proposals.pending = first.pending
            return first
        choices = list(reversed(fit.values()))
        known = [(c.arch, c.draft.answers) for c in choices if c.arch is not None]
        best, guess = self.screen.choose(known, len(self.history.log))
        chosen = choices[best]
        chosen.draft.random, chosen.draft.guess = False, guess
        self.proposals.pending = chosen.pending
        return chosen

    def _is_new(self, candidate: Candidate) -> bool:
        """Whether it keeps the budget, as far as its graph tells, and nobody evaluates it yet."""
        assert candidate.arch is not None
        return keeps_counted(candidate.arch, self.plan.budget) and self.history.claimed((candidate.name, 0)) is None

    def _proposed(self, task: Task, variant: int = 0) -> Candidate:
        draft = Draft()
        self._choose(draft, task, variant)
        candidate = compiled(self.plan, draft, self.goes_through_all)  # all combinations, right or not
        candidate.pending = self.proposals.pending
        return candidate

    def _duplicate(self, first: int) -> dict[str, Any]:
        outcome: dict[str, Any] = {"state": "duplicate", "duplicate_of": first}
        known = self.history.records.get(first)
        return outcome | ({"values": list(known.values)} if known is not None and known.values is not None else {})

    def overtime(self) -> None:
        """Keep the trial under way as failed: its evaluation does not end, and this process will."""
        if self._under_way is not None:
            trace = "".join(f"{line}\n" for line in stacks())
            close_trial(self.study, self._under_way, late(self.plan) | {"trace": trace[-MAX_TRACE:]})

    def _make(self, candidate: Candidate, task: Task, outcome: dict[str, Any]) -> TrialRecord | None:
        """Write a trial that has ended before anything was evaluated."""
        told = {REASON: outcome.pop(REASON)} if REASON in outcome else {}
        own = {**candidate.attrs, **told, OUTCOME: outcome, WORKER: self.lease.id, **task.origin}
        state, values, limits = final_state(outcome), outcome.get("values"), candidate.limits
        notes = self.proposals.notes(limits, state, values)
        trial = candidate.draft.trial(state, values=values, user_attrs=own, system_attrs=notes, constraints=limits)
        return self._ended(make_trial(self.study, trial))

    def _close(self, number: int, outcome: dict[str, Any], evaluated: bool = False) -> TrialRecord | None:
        """Write the outcome of a trial, and bring what it cost to find to the disk."""
        trial = self.study.get_trials(deepcopy=False)[number]
        self.proposals.ended(trial, final_state(outcome), outcome.get("values"))
        if not close_trial(self.study, number, outcome):
            return None
        if evaluated:
            flush(self.study)
        return self._ended(number)

    def _ended(self, number: int) -> TrialRecord | None:
        self.history.sync()
        return self.history.records.get(number)

    def _choose(self, draft: Draft, task: Task, variant: int = 0) -> None:
        """Say how the values of a draft are chosen; `variant` tells several proposals for one trial apart.

        Interrupted trials do not count: what comes after them is as it would be without the stop.
        """
        log = self.history.log
        apart = [self.stream, variant] if variant else [self.stream] if self.stream else []
        seeds = [self.plan.seed, len(log), *apart]
        stuck = len(log) >= _STUCK and all(r.state == "duplicate" for r in log[-_STUCK:])
        draft.random = False
        if task.params is not None:
            draft.choose = fixed(task.params, uniform(np.random.default_rng(seeds)))
        elif not self.goes_through_all and self._scarce(log[-_SCARCE:]):
            draft.choose = self._near_the_smallest(seeds)
        elif not self.goes_through_all and stuck:
            draft.choose, draft.random = uniform(np.random.default_rng(seeds)), True
        else:
            number = len(self.history.records) + len(self.history.running)
            self.proposals.begin(draft, seeds, number, variant)

    @staticmethod
    def _scarce(latest: list[TrialRecord]) -> bool:
        """Whether the budget refuses so many that proposals need a place to begin at."""
        idle = all(r.state not in EVALUATED for r in latest)
        return idle and len(latest) == _SCARCE and any(r.state == "refused" for r in latest)

    def _near_the_smallest(self, seeds: list[int]) -> Choose:
        """Where hardly any candidate keeps the budget: the smallest one, in a few holes like a random one."""
        rng = np.random.default_rng(seeds)
        if self._smallest is None:
            answers = smallest_candidate(self.plan.space, self.plan.budget).answers
            self._smallest = {name: scalar_of(self.holes[name], value) for name, value in answers.items()}
        share = rng.choice([0.0, 0.1, 0.3])
        kept = {name: value for name, value in self._smallest.items() if rng.random() >= share}
        return fixed(kept, uniform(rng))

    def _exhausted(self, idle: list[TrialRecord]) -> str:
        counts = Counter(r.state for r in idle)
        text = f"{len(idle)} proposals in a row brought nothing new to evaluate"
        text += f" ({', '.join(f'{counts[s]} {label}' for s, label in LABELS.items() if counts[s])})"
        if self.history.evaluated:
            return text
        over = [r for r in idle if r.state == "refused" and r.macs is not None]
        if over:
            budget = self.plan.budget
            limits = budget.limits | ({TRAINING: budget.training_bytes} if budget.training_bytes else {})
            own = {n: n.removeprefix(DEPLOYED) for n in limits}  # a trial notes what the trained form costs
            nearest = min(
                over, key=lambda r: max(((getattr(r, own[n]) or 0) / limit for n, limit in limits.items()), default=0.0)
            )
            raise BudgetError(f"{text}\n  the nearest one: {nearest.reason}\n  hint: {too_small(budget)}")
        raise SearchError(f"{text}\n  the last one: {idle[-1].reason}")

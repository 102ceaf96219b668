"""The loop of a search: a step asks for a candidate, checks it on the compiled graph, tells the outcome."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from typing import Any

import optuna
from optuna.study import Study

from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BudgetError, SpecError
from blockforge.search.budget import excess, over
from blockforge.search.errors import SearchError
from blockforge.search.interrupts import Interrupts, Stopped
from blockforge.search.progress import Reporter
from blockforge.search.records import EVALUATED, TrialRecord, Verdict, arch_attributes, read_trial
from blockforge.search.sampling import asker, make_sampler
from blockforge.search.score import Objective, checked
from blockforge.search.storage import Journal, give_up, tell_outcome
from blockforge.spec import Spec, holes
from blockforge.units import Budget

MAX_IDLE = 500
_STUCK = 10
"""After so many duplicates in a row the sampler is stuck, and the next proposal is a random one."""
_MAX_TRACE = 4000


class Session:
    """A study at work."""

    def __init__(
        self,
        study: Study,
        journal: Journal | None,
        space: Spec,
        budget: Budget,
        objective: Objective,
        seed: int,
        sampler: str,
        interrupts: Interrupts,
    ) -> None:
        self.study, self.journal, self.space, self.budget = study, journal, space, budget
        self.objective, self.seed, self.sampler, self.interrupts = objective, seed, sampler, interrupts
        self.holes = holes(space)
        self.records: list[TrialRecord] = []
        self.known: dict[str, TrialRecord] = {}
        self.evaluated = 0
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._add(read_trial(trial, self.holes))

    def run(self, target: int, reporter: Reporter, max_idle: int = MAX_IDLE) -> str | None:
        """Go on until `target` candidates are evaluated; why it ended before, if it did.

        Raises: BudgetError or SearchError if not a single candidate could be evaluated.
        """
        idle: list[TrialRecord] = []
        while self.evaluated < target:
            if self.interrupts.received is not None:
                return "it was interrupted"
            if len(idle) >= max_idle:
                return self._exhausted(idle)
            record = self.step()
            reporter.update(record)
            idle = [] if record.state in EVALUATED else [*idle, record]
        return None

    def step(self) -> TrialRecord:
        """One trial, from the proposal to its outcome."""
        self.study.sampler = self._next_sampler()
        trial = self.study.ask()
        try:
            arch = compile_spec(self.space, ask=asker(trial, {}))
        except SpecError as e:
            trial.set_constraint("spec", 1.0)
            return self._close(trial, {"state": "invalid", "reason": str(e.diagnostics[0].message)})
        trial.set_user_attr("arch", arch_attributes(arch))
        for name, share in excess(arch, self.budget).items():
            trial.set_constraint(name, share)
        if text := over(arch, self.budget):
            return self._close(trial, {"state": "refused", "reason": text})
        if (first := self.known.get(arch.hash)) is not None:
            return self._close(trial, {"state": "duplicate", "duplicate_of": first.number, "score": first.score})
        return self._evaluate(trial, arch)

    def _evaluate(self, trial: optuna.Trial, arch: Architecture) -> TrialRecord:
        started = time.perf_counter()
        try:
            with self.interrupts.evaluation():
                score = checked(self.objective(arch))
        except Stopped:
            trial.set_user_attr("outcome", {"state": "interrupted", "reason": "it was stopped"})
            give_up(self.study, trial, trial.user_attrs.get("retries", 0))
            return self._add(read_trial(self.study.get_trials(deepcopy=False)[trial.number], self.holes))
        except Exception as e:
            outcome = {"state": "failed", "reason": f"{type(e).__name__}: {e}"[:300]}
            outcome["trace"] = traceback.format_exc()[-_MAX_TRACE:]
            return self._close(trial, outcome)
        seconds = round(time.perf_counter() - started, 3)
        return self._close(trial, {"state": "scored", "score": score, "seconds": seconds})

    def _close(self, trial: optuna.Trial, outcome: dict[str, Any]) -> TrialRecord:
        """Write the outcome, tell the sampler, and bring both to the disk."""
        trial.set_user_attr("outcome", outcome)
        told = tell_outcome(self.study, trial.number, outcome)
        if self.journal is not None:
            self.journal.sync()
        return self._add(read_trial(told, self.holes))

    def _add(self, record: TrialRecord) -> TrialRecord:
        self.records.append(record)
        if record.state in EVALUATED:
            self.evaluated += 1
            if record.hash is not None:
                self.known.setdefault(record.hash, record)
        return record

    def _next_sampler(self) -> optuna.samplers.BaseSampler:
        """Interrupted trials do not count: what comes after them is as it would be without the stop."""
        done = [r for r in self.records if r.state != "interrupted"]
        tail = done[-_STUCK:]
        stuck = len(tail) == _STUCK and all(r.state == "duplicate" for r in tail)
        return make_sampler("random" if stuck else self.sampler, self.seed, len(done))

    def _exhausted(self, idle: list[TrialRecord]) -> str:
        counts = Counter(r.state for r in idle)
        text = f"{len(idle)} proposals in a row brought nothing new to evaluate"
        parts: dict[Verdict, str] = {
            "refused": "over budget",
            "duplicate": "known already",
            "invalid": "invalid",
        }
        text += f" ({', '.join(f'{counts[s]} {label}' for s, label in parts.items() if counts[s])})"
        if self.evaluated:
            return text
        if counts["refused"]:
            nearest = min(
                (r for r in idle if r.state == "refused"),
                key=lambda r: max(getattr(r, n) / v for n, v in self.budget.limits.items()),
            )
            hint = "raise the budget a little, or lower the upper ends of the space's holes"
            raise BudgetError(f"{text}\n  the nearest one: {nearest.reason}\n  hint: {hint}")
        raise SearchError(f"{text}\n  the last one: {idle[-1].reason}")

"""What is known of a trial: its candidate, what it costs, what became of it.

Optuna keeps a trial's number, state, value and hole values; the rest stands in two user attributes that are
written once each: `arch` before the evaluation, `outcome` after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from blockforge.compiler import Architecture
from blockforge.search.sampling import label_of
from blockforge.spec import Hole

Verdict = Literal["scored", "duplicate", "refused", "invalid", "failed", "interrupted", "running"]
"""`scored`: evaluated. `duplicate`: the network of an earlier trial, whose score it takes. `refused`: over
the budget. `invalid`: does not compile. `failed`: its evaluation raised. `interrupted`: to be tried again."""

EVALUATED: tuple[Verdict, ...] = ("scored", "failed")
"""What counts towards `--trials`."""

MAX_RETRIES = 2
"""How often a candidate is tried again whose evaluation ended with the process."""

COSTS = ("macs", "params", "activation_bytes", "depth")


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search. Costs are None where the candidate did not compile."""

    number: int
    state: Verdict
    holes: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    macs: int | None = None
    params: int | None = None
    activation_bytes: int | None = None
    depth: int | None = None
    hash: str | None = None
    duplicate_of: int | None = None
    seconds: float | None = None
    reason: str | None = None
    trace: str | None = None


def arch_attributes(arch: Architecture) -> dict[str, Any]:
    """What is kept of a candidate before its evaluation."""
    return {**{name: getattr(arch, name) for name in COSTS}, "hash": arch.hash}


def read_trial(trial: FrozenTrial, holes: Mapping[str, Hole]) -> TrialRecord:
    """The record of a stored trial."""
    outcome: dict[str, Any] = {"state": "running"}
    if trial.state.is_finished():
        outcome = trial.user_attrs.get("outcome") or _cut_off(trial)
    answers = {name: label_of(holes[name], value) for name, value in trial.params.items()}
    known = trial.user_attrs.get("arch", {})
    return TrialRecord(trial.number, holes=answers, **known, **outcome)


def final_state(outcome: Mapping[str, Any]) -> TrialState:
    """What Optuna is told of a trial with this outcome."""
    if outcome.get("score") is not None:
        return TrialState.COMPLETE
    return TrialState.PRUNED if outcome["state"] in ("refused", "invalid") else TrialState.FAIL


def _cut_off(trial: FrozenTrial) -> dict[str, Any]:
    """The outcome of a trial whose process died before it could write one."""
    tries = trial.user_attrs.get("retries", 0) + 1
    reason = f"its process died (attempt {tries})"
    return {"state": "failed" if tries > MAX_RETRIES else "interrupted", "reason": reason}


def ranked(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Scored candidates, the best first; equal scores in the order of smaller MACs."""
    scored = [r for r in records if r.state == "scored"]
    return sorted(scored, key=lambda r: (-_number(r.score), _number(r.macs), r.number))


def pareto_front(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Scored candidates that no other beats in both score and MACs, the smallest first."""
    front: list[TrialRecord] = []
    best = float("-inf")
    for record in sorted(ranked(records), key=lambda r: _number(r.macs)):
        if _number(record.score) > best:
            front.append(record)
            best = _number(record.score)
    return front


def _number(value: float | None) -> float:
    assert value is not None
    return value

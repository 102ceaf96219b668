"""What is known of a trial: its candidate, what it costs, what became of it.

Optuna keeps a trial's number, state, values and hole values; the rest stands in user attributes, flat where people look
for it: costs, hash and what the candidate comes from, written when the trial is made; `reason` where there is one.
`outcome` is written once, when it has ended. Trials of version 0.1 have costs and hash in one attribute, `arch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from blockforge.compiler import Architecture
from blockforge.search.objectives.costs import COSTS
from blockforge.search.objectives.scores.capacity import Capacity
from blockforge.search.space.load import candidate
from blockforge.search.space.parameters import label_of
from blockforge.search.study import pareto
from blockforge.spec import Hole, Spec, load
from blockforge.units import TRAINING

Verdict = Literal[
    "scored", "duplicate", "refused", "unfitted", "excluded", "invalid", "failed", "pruned", "interrupted", "running"
]
"""`scored`: evaluated. `duplicate`: the network of an earlier trial, whose values it takes. `refused`: over the
budget. `unfitted`: no widths of it cost what `fit` wants. `excluded`: against a relation of the space. `invalid`: does
not compile. `failed`: its evaluation raised, or its process died too often. `pruned`: its evaluation was cut short,
because it did not look good. `interrupted`: to be tried again."""

LABELS: dict[Verdict, str] = {
    "refused": "over budget",
    "unfitted": "not to be fitted",
    "excluded": "against require",
    "duplicate": "duplicate",
    "invalid": "invalid",
    "failed": "failed",
    "pruned": "pruned",
    "interrupted": "interrupted",
}
"""What became of candidates that have no score, in words, in the order in which they are told."""

EVALUATED: tuple[Verdict, ...] = ("scored", "failed", "pruned")
"""What counts towards `--trials`."""

UNBUILT: tuple[Verdict, ...] = ("refused", "unfitted", "excluded", "invalid")
"""What nothing was built for."""

MAX_RETRIES = 2
"""How often a candidate is tried again whose evaluation ended with the process."""

OUTCOME, REASON, WORKER, DEATH = "outcome", "reason", "worker", "death"
_ARCH, _ARCH_0_1 = (*COSTS, "capacity", "hash", "recipe", TRAINING, "widths"), "arch"
RANDOM, GUESS = "random", "guess"
ORIGIN = ("start", "retry_of", "retries", "rung", "promoted_from", RANDOM, GUESS)
"""Attributes that say where a candidate comes from."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search. Costs are None where the candidate did not compile.

    Attributes:
        score: the value that ranks the candidate; None where there are several.
        values: all values that the study ranks by, in order.
        figures: everything that objectives reported, by name.
        hash: of its network. recipe: of what it is trained by, where candidates have recipes of their own.
        capacity: the sum of log(dim) over layers; None in studies that did not keep it.
        training_bytes: where the budget limits it, and it was asked: of candidates that keep all other limits.
        widths: values by path that were scaled to fit the budget.
        rung: 0, or how often the candidate has gone up since.
        random: its values were drawn, whatever was known of other candidates.
        guess: where it was screened, what was thought of it: the place among the networks known then, 0 to 1 (the
            best), for each value.
        start: the name of the spec it was, where the search was given one to start from.
    """

    number: int
    state: Verdict
    holes: dict[str, Any] = field(default_factory=dict)
    score: float | None = None
    values: tuple[float, ...] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    macs: int | None = None
    params: int | None = None
    activation_bytes: int | None = None
    depth: int | None = None
    capacity: float | None = None
    hash: str | None = None
    recipe: str | None = None
    training_bytes: int | None = None
    widths: dict[str, Any] = field(default_factory=dict)
    duplicate_of: int | None = None
    seconds: float | None = None
    reason: str | None = None
    trace: str | None = None
    start: str | None = None
    retry_of: int | None = None
    retries: int = 0
    rung: int = 0
    promoted_from: int | None = None
    random: bool = False
    guess: tuple[float, ...] | None = None
    worker: str | None = None

    @property
    def candidate(self) -> str | None:
        """What is trained: a network, by a recipe of its own if it has one."""
        return candidate_name(self.hash, self.recipe)

    @property
    def key(self) -> tuple[str | None, int]:
        """What is evaluated once: a candidate on a rung."""
        return self.candidate, self.rung


def candidate_name(network: str | None, recipe: str | None) -> str | None:
    """The name of a network by its hash that is trained by a recipe of some hash."""
    return network if recipe is None or network is None else f"{network}-{recipe}"


def arch_attributes(
    arch: Architecture, widths: Mapping[str, Any], training_bytes: int | None = None, recipe: str | None = None
) -> dict[str, Any]:
    """What is kept of a candidate before its evaluation."""
    attrs = {**{name: getattr(arch, name) for name in COSTS}, "capacity": Capacity()(arch), "hash": arch.hash}
    if recipe is not None:
        attrs["recipe"] = recipe
    if training_bytes is not None:
        attrs[TRAINING] = training_bytes
    return {**attrs, "widths": dict(widths)} if widths else attrs


def known_of_arch(trial: FrozenTrial) -> dict[str, Any]:
    """What `arch_attributes` wrote of a trial."""
    attrs = trial.user_attrs
    return attrs.get(_ARCH_0_1) or {name: attrs[name] for name in _ARCH if name in attrs}


def verdict_of(trial: FrozenTrial) -> Verdict:
    """What became of a trial of any study; plain Optuna knows complete, failed, pruned and broken constraints."""
    if not trial.state.is_finished():
        return "running"
    if WORKER in trial.user_attrs or OUTCOME in trial.user_attrs:
        return _outcome(trial)["state"]
    if trial.state == TrialState.COMPLETE:
        return "scored"
    if trial.state == TrialState.FAIL:
        return "failed"
    return "refused" if any(by > 0 for by in trial.constraints.values()) else "pruned"


def _outcome(trial: FrozenTrial) -> dict[str, Any]:
    """What its worker wrote of a finished trial."""
    attrs = trial.user_attrs
    outcome = {REASON: attrs.get(REASON), **(attrs.get(OUTCOME) or _cut_off(trial))}
    if outcome["state"] == "refused":  # studies of earlier versions tell the reason in the constraints alone
        kinds = {name.partition("[")[0] for name, by in trial.constraints.items() if by > 0}
        outcome["state"] = "excluded" if "require" in kinds else "unfitted" if "fit" in kinds else "refused"
    return outcome


def read_trial(trial: FrozenTrial, holes: Mapping[str, Hole]) -> TrialRecord:
    """The record of a stored trial."""
    outcome = _outcome(trial) if trial.state.is_finished() else {"state": "running"}
    values = outcome.pop("values", None)
    if values is not None:
        outcome |= {"values": tuple(values), "score": values[0] if len(values) == 1 else None}
    answers = {name: label_of(holes[name], value) for name, value in trial.params.items() if name in holes}
    origin = {k: v for k, v in trial.user_attrs.items() if k in (*ORIGIN, WORKER)}
    if GUESS in origin:
        origin[GUESS] = tuple(origin[GUESS])
    return TrialRecord(trial.number, holes=answers, **known_of_arch(trial), **origin, **outcome)


def candidate_of(space: Spec, trial: TrialRecord, notes: Mapping[str, Any] | None = None) -> Spec:
    """The ordinary spec of a trial's candidate; `notes` go into its `about.search`."""
    spec = candidate(space, trial.holes, f"{space.name}_{(trial.hash or '')[:8]}", notes or {})
    return load(spec, trial.widths) if trial.widths else spec


def final_state(outcome: Mapping[str, Any]) -> TrialState:
    """What Optuna is told of a trial with this outcome."""
    if outcome.get("values") is not None:
        return TrialState.COMPLETE
    return TrialState.PRUNED if outcome["state"] in (*UNBUILT, "pruned") else TrialState.FAIL


def _cut_off(trial: FrozenTrial) -> dict[str, Any]:
    """The outcome of a trial whose process died before it could write one."""
    tries = trial.user_attrs.get("retries", 0) + 1
    death = trial.user_attrs.get(DEATH, {})
    reason = f"{death.get('reason', 'its process died')} (attempt {tries})"
    state: Verdict = "failed" if tries > MAX_RETRIES else "interrupted"
    return {"state": state, "reason": reason, "trace": death.get("trace")}


def losses(records: Sequence[TrialRecord], signs: Sequence[float]) -> pareto.Losses:
    """Values as losses, a row a record. `signs`: 1 where larger is better, -1 where smaller is."""
    rows = [r.values if r.values is not None else (r.score,) for r in records]
    return -np.asarray(rows, float).reshape(len(rows), len(signs)) * np.asarray(signs)


def ranked(records: Iterable[TrialRecord], signs: Sequence[float] = (1.0,)) -> list[TrialRecord]:
    """Scored candidates, the best first, each by its highest rung: those of higher rungs stand before the others.

    With one value equal ones go by smaller MACs; with several they go by non-dominated rank, the least crowded
    first.
    """
    highest: dict[str | int, TrialRecord] = {}
    for r in sorted((r for r in records if r.state == "scored"), key=lambda r: (r.rung, r.number)):
        highest[r.candidate or r.number] = r
    best_first: list[TrialRecord] = []
    for rung in sorted({r.rung for r in highest.values()}, reverse=True):
        level = sorted((r for r in highest.values() if r.rung == rung), key=lambda r: (_number(r.macs), r.number))
        best_first += [level[i] for i in pareto.order(losses(level, signs))]
    return best_first


def pareto_front(records: Iterable[TrialRecord], signs: Sequence[float] = (1.0,)) -> list[TrialRecord]:
    """Scored candidates of the highest rung that no other beats, the smallest first.

    With one value, the MACs are the second one.
    """
    best = ranked(records, signs)
    level = sorted((r for r in best if r.rung == best[0].rung), key=lambda r: _number(r.macs))
    if not level:
        return []
    rows = losses(level, signs)
    if len(signs) == 1:
        rows = np.column_stack([rows, [_number(r.macs) for r in level]])
    front = [r for r, rank in zip(level, pareto.ranks(rows), strict=True) if rank == 0]
    distinct = {
        (*(r.values or (_number(r.score),)), _number(r.macs)): r for r in reversed(front)
    }  # of equal ones the first
    return [r for r in front if r in distinct.values()]


def _number(value: float | None) -> float:
    assert value is not None
    return value

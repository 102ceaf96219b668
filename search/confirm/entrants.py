"""Which networks of a search are trained again: the best, and what they are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from blockforge.search.confirm.aim import Aim, cost_of, front_first
from blockforge.search.confirm.shared import with_shared_changes
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord, ranked

Role = Literal["finalist", "start", "generic", "random"]


@dataclass(frozen=True)
class Entrant:
    """A network that is trained again.

    Attributes:
        label: what tables call it.
        trial: the trial that it was; of a network that the search did not propose what a trial of it would be.
        note: what is to be said of it beside that.
    """

    role: Role
    label: str
    trial: TrialRecord
    note: str = ""

    @property
    def hash(self) -> str:
        """What it is told apart by: the network, with its recipe if it has one of its own."""
        return str(self.trial.candidate)


@dataclass(frozen=True)
class Entrants:
    """The networks of a confirmation.

    Attributes:
        finalists: the best of the search, the best first; one of them will be the winner.
        baselines: what the winner is compared with: the specs that the search began with, the best of these with what
            most of the best candidates have changed outside of structure (`shared`), and the best candidate that was
            drawn at random. A finalist may be one of them too.
        drawn: how many distinct random candidates that one is the best of.
        aim: what the winner is chosen for; None: the highest accuracy.
    """

    finalists: tuple[Entrant, ...]
    baselines: tuple[Entrant, ...]
    drawn: int = 0
    aim: Aim | None = None

    def __iter__(self) -> Iterator[Entrant]:
        return iter((*self.finalists, *self.baselines))


def entrants(plan: Plan, records: Iterable[TrialRecord], control: Sequence[TrialRecord] = ()) -> Entrants:
    """Those of a search as it stands.

    Args:
        control: the trials of its control (`control`), if it has one.
    """
    records = list(records)
    cheaper = plan.config.goal.cheaper is not None
    entered = chosen(records, plan.signs, plan.config.confirm.top or 0, cheaper)
    if control:
        entered = _with_control(entered, control, plan.signs, cheaper)
    if cheaper:
        entered = _with_aim(entered, plan)
    begun = [e for e in entered.baselines if e.role == "start"]
    wanted = next((e for e in begun if entered.aim is None or e.hash == entered.aim.start), None)
    if wanted is None:
        return entered
    shared = with_shared_changes(plan, wanted.trial, ranked(records, plan.signs))
    if shared is None or shared.trial.candidate in {e.hash for e in entered.baselines}:
        return entered
    generic = Entrant("generic", shared.label, shared.trial, shared.note)
    baselines = (*entered.baselines[: len(begun)], generic, *entered.baselines[len(begun) :])
    return dataclasses.replace(entered, baselines=baselines)


def chosen(records: Sequence[TrialRecord], signs: Sequence[float], top: int, cheaper: bool = False) -> Entrants:
    """Those among the candidates themselves: the best `top`, what the search began with, and the best random one.

    Args:
        cheaper: something cheaper than a start is wanted, which may then be over the budget, and is no finalist.
    """
    best_first = [r for r in ranked(records, signs) if r.hash is not None]
    places = {r.candidate: place for place, r in enumerate(best_first, 1)}
    names = {r.candidate: r.start for r in reversed(records) if r.start is not None}
    begun = [r for r in best_first if r.candidate in names]
    if cheaper:
        best_first = front_first([r for r in best_first if r.candidate not in names], signs)
        begun += [r for r in records if r.start is not None and r.state == "refused" and r.hash is not None]
    finalists = tuple(Entrant("finalist", f"rank {places[r.candidate]}", r) for r in best_first[:top])
    starts = [Entrant("start", f"start {names[r.candidate]}", r) for r in begun]
    drawn = {r.candidate for r in records if r.random and r.state == "scored"} - names.keys()
    of_chance = [r for r in best_first if r.candidate in drawn][:1]
    label = f"the best of {len(drawn)} random candidates" if len(drawn) > 1 else "the only random candidate"
    return Entrants(finalists, (*starts, *(Entrant("random", label, r) for r in of_chance)), len(drawn))


def _with_aim(entered: Entrants, plan: Plan) -> Entrants:
    """The start that something cheaper is wanted for: of several the first that the search was given."""
    order = list(plan.starts)
    starts = sorted((e for e in entered.baselines if e.role == "start"), key=lambda e: order.index(e.trial.start or ""))
    if not starts:
        return dataclasses.replace(entered, finalists=())  # nothing to be cheaper than: it did not compile
    first = starts[0]
    costs = {e.hash: cost_of(plan, e.trial) for e in (*entered.finalists, first)}
    aim = Aim(plan.config.confirm.margin, first.hash, first.label, plan.config.goal.cheaper or "", costs)
    return dataclasses.replace(entered, aim=aim)


def _with_control(entered: Entrants, control: Sequence[TrialRecord], signs: Sequence[float], cheaper: bool) -> Entrants:
    """The best of the control in the place of the best random candidate of the search."""
    others = tuple(e for e in entered.baselines if e.role != "random")
    number = len({r.candidate for r in control if r.state == "scored" and r.rung == 0})
    label = f"the best of {number} random candidates at equal cost"
    best_first = ranked(control, signs)
    best_first = front_first(best_first, signs) if cheaper else best_first
    best = tuple(Entrant("random", label, r) for r in best_first[:1])
    return dataclasses.replace(entered, baselines=(*others, *best), drawn=number)

"""What a confirmation says: the winner's accuracy and its lead over each baseline, with intervals."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.storages import BaseStorage

from blockforge.search.confirm.aim import Aim
from blockforge.search.confirm.control import read_control
from blockforge.search.confirm.entrants import Entrant, Entrants, entrants
from blockforge.search.confirm.race import FINAL, Key, Race, Training, next_trainings, run_race
from blockforge.search.confirm.session import CONFIRM, read_trainings
from blockforge.search.confirm.statistics import CONFIDENCE, Interval, difference, mean_interval, rounding, simultaneous
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord


@dataclass(frozen=True)
class Measured:
    """A network with what the seeds say that took no part in choosing the winner.

    Attributes:
        val: accuracy on the images that the search chose by.
        test: on the test images; None where there are none.
        lead: by how much the winner is better, on the test images if there are any; None for the winner itself, and
            where a training failed.
        failed: why a training of it has no accuracy.
        seconds: of a training, the median; None: not known.
        against: the hash of the winner, and what it was chosen for, of the start that something cheaper was wanted for.
    """

    entrant: Entrant
    val: Interval
    test: Interval | None
    lead: Interval | None = None
    failed: str | None = None
    seconds: float | None = None
    against: tuple[str, Aim] | None = None

    @property
    def verdict(self) -> str:
        """What may be said of the winner beside it."""
        if self.lead is None:
            return f"Not compared with {self.entrant.label}: {self.failed}" if self.failed else ""
        if self.against is not None:
            winner, aim = self.against
            return aim.verdict(winner, self.lead)
        said = "Better than" if self.lead.better else "Worse than" if self.lead.worse else "Not better than"
        lead = f"{abs(self.lead.estimate):.2f}" if self.lead.better or self.lead.worse else f"{self.lead.estimate:+.2f}"
        low, high = (-self.lead.high, -self.lead.low) if self.lead.worse else (self.lead.low, self.lead.high)
        sign = "" if self.lead.better or self.lead.worse else "+"
        ends = f"{low:{sign}.2f} to {high:{sign}.2f}"
        by = " by" if self.lead.better or self.lead.worse else ":"
        return f"{said} {self.entrant.label}{by} {lead} points ({ends})"


@dataclass(frozen=True)
class Confirmation:
    """What is known of the best networks of a search once they were trained again.

    Attributes:
        winner: the network that the race has chosen; None: it has not ended, or all have failed.
        baselines: what the winner is compared with.
        race: how it was chosen.
        left: trainings that are still missing for this to be whole.
        same: baselines that the winner itself is, by what they are called.
    """

    entered: Entrants
    race: Race
    trainings: Mapping[Key, Training] = field(repr=False)
    winner: Measured | None = None
    baselines: tuple[Measured, ...] = ()
    left: int = 0
    same: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether the test images were looked at."""
        return self.winner is not None and self.winner.test is not None

    @property
    def seeds(self) -> int:
        """Trainings that the winner was measured by."""
        return self.winner.val.values if self.winner is not None else 0


def read_confirmation(
    plan: Plan, trials: Iterable[TrialRecord], storage: BaseStorage, study: str
) -> Confirmation | None:
    """The confirmation beside a study, as far as it is; None: there is none."""
    if plan.data is None:
        return None
    with contextlib.suppress(KeyError):
        known = read_trainings(optuna.load_study(storage=storage, study_name=f"{study}-{CONFIRM}"), plan)
        if not known:
            return None
        entered = entrants(plan, trials, read_control(storage, study, plan))
        return confirmed(entered, known, plan.config.confirm.seeds)
    return None


def confirmed(entered: Entrants, trainings: Mapping[Key, Training], seeds: int) -> Confirmation:
    """What trainings say."""
    missing, _ = next_trainings(entered, trainings, seeds)
    aim = entered.aim
    race = run_race([e.hash for e in entered.finalists], trainings, seeds, aim)
    first = next((e for e in entered.finalists if e.hash == race.winner), None)
    if first is None:
        return Confirmation(entered, race, trainings, left=len(missing))
    others = [e for e in entered.baselines if e.hash != first.hash]
    wanted = {first.hash, aim.start} if aim is not None else set()
    confidence = simultaneous(len([e for e in others if e.hash not in wanted]))  # what was asked for is asked alone
    baselines = tuple(
        _measured(
            e, trainings, first, CONFIDENCE if e.hash in wanted else confidence, aim if e.hash in wanted else None
        )
        for e in others
    )
    same = tuple(e.label for e in entered.baselines if e.hash == first.hash)
    return Confirmation(entered, race, trainings, _measured(first, trainings), baselines, len(missing), same)


def _measured(
    entrant: Entrant,
    trainings: Mapping[Key, Training],
    against: Entrant | None = None,
    confidence: float = CONFIDENCE,
    aim: Aim | None = None,
) -> Measured:
    own = _final(entrant, trainings)
    val = mean_interval([t.top1 for t in own if t.top1 is not None], least_sd=0)
    tests = [t.test for t in own if t.test is not None]
    floor = rounding(own[0].images) if own else 0.0
    test = mean_interval(tests, least_sd=floor / math.sqrt(2)) if tests else None
    times = [t.seconds for t in own if t.seconds is not None]
    seconds = statistics.median(times) if times else None
    if against is None:
        return Measured(entrant, val, test, seconds=seconds)
    theirs = _final(against, trainings)
    if failed := next((f"its {e.reason}" for e in (*own, *theirs) if e.top1 is None), None):
        return Measured(entrant, val, test, failed=f"a training failed, {failed}", seconds=seconds)
    a, b = ({t.seed: t.test if t.test is not None else t.top1 or 0.0 for t in runs} for runs in (theirs, own))
    lead = difference(a, b, confidence, floor)
    return Measured(entrant, val, test, lead, None, seconds, (against.hash, aim) if aim is not None else None)


def _final(entrant: Entrant, trainings: Mapping[Key, Training]) -> list[Training]:
    """The trainings that measure a network, in the order of their seeds."""
    return [t for key, t in sorted(trainings.items()) if key[0] == entrant.hash and key[1] >= FINAL]

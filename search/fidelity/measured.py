"""What a table of trainings says of short trainings: how they rank, how noisy they are, what a claim needs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blockforge.console.text_table import Number, TextTable
from blockforge.errors import SearchError
from blockforge.search.fidelity.recall import FEWEST, RECALL, good, share_needed
from blockforge.search.fidelity.record import Fidelity, Rung
from blockforge.search.fidelity.table import Table
from blockforge.search.objectives.ranking import Estimate, Rankings

CLAIMS = (0.25, 0.5, 1.0)
"""Differences of accuracy, in points."""
_FEWEST = 3
"""Networks that have a ranking, and a noise that is not one network's own."""
_SURE = 1.96 + 0.84
"""Deviations between 0 and a difference whose 95% interval lies above 0 in 80 of 100 comparisons."""


@dataclass(frozen=True)
class Findings:
    """Figures of a table.

    Attributes:
        fidelity: what a search reads.
        fresh: of each rung, tau of the first training with the mean of later ones at the top rung, over the networks
            that were trained again: the better ones. At the top rung itself it is the ceiling that seeds leave.
        again: how many these are.
        left_out: networks of which a training failed.
    """

    fidelity: Fidelity
    fresh: tuple[Estimate | None, ...]
    again: int
    left_out: int


def measure(table: Table, rungs: Sequence[int] | None = None) -> Findings:
    """The figures of the networks that were trained at every rung; None: at all lengths of the table.

    Raises: SearchError if there are too few.
    """
    steps = sorted(set(rungs) if rungs else {key[1] for key in table.trainings})
    whole = [n for n in sorted(table.networks) if all((n, s, 0) in table.trainings for s in steps)]
    failed = {n for n, s, _ in table.trainings if s in steps and table.trainings[n, s, _].top1 is None}
    used = [n for n in whole if n not in failed]
    if not steps or len(used) < _FEWEST:
        raise SearchError(f"{len(used)} networks were trained at every rung; a ranking needs {_FEWEST}"
                          "\n  hint: the same command goes on")  # fmt: skip
    first = {s: [_top1(table, n, s, 0) for n in used] for s in steps}
    top = steps[-1]
    rankings = Rankings({str(s): first[s] for s in steps})
    taus = {s: _known(rankings.tau(str(s), str(top))) for s in steps}
    wanted = good(np.array([_worth(table, n, top) for n in used]))
    values = [
        Rung(
            steps=s, tau=tau, low=low, high=high, seconds=_median_seconds(table, used, s),
            keep=round(share_needed(np.array(first[s]), wanted), 4) if wanted.sum() >= FEWEST else None,
        )
        for s, (tau, low, high) in taus.items()
    ]  # fmt: skip
    again, fresh = _fresh(table, used, steps)
    setting = table.setting
    record = Fidelity(
        space=table.space.name, data=setting.data, recipe=setting.recipe, budget=setting.budget, networks=len(used),
        rungs=tuple(values), seed_noise=tuple(_noise(table, used, s) for s in steps),
        spread=tuple(round(statistics.stdev(first[s]), 4) for s in steps),
    )  # fmt: skip
    return Findings(record, fresh, again, len(whole) - len(used))


def _top1(table: Table, network: int, steps: int, repeat: int) -> float:
    value = table.trainings[network, steps, repeat].top1
    assert value is not None
    return value


def _known(tau: Estimate) -> tuple[float, float, float]:
    """A ranking that does not exist, since all are equal, agrees with nothing."""
    value, low, high = (0.0 if math.isnan(v) else round(max(-1.0, min(1.0, v)), 4) for v in tau)
    return value, low, high


def _median_seconds(table: Table, networks: Sequence[int], steps: int) -> float:
    return round(max(1e-3, statistics.median(table.trainings[n, steps, 0].seconds for n in networks)), 3)


def _worth(table: Table, network: int, steps: int) -> float:
    """The mean of all trainings."""
    return statistics.fmean([_top1(table, network, steps, 0), *_later(table, network, steps)])


def _later(table: Table, network: int, steps: int) -> list[float]:
    """What a network reached in trainings that were not looked at when it was chosen to be trained again."""
    accuracies = [t.top1 for (n, s, repeat), t in table.trainings.items() if n == network and s == steps and repeat > 0]
    return [value for value in accuracies if value is not None]


def _noise(table: Table, networks: Sequence[int], steps: int) -> float | None:
    """Pooled over networks; None for too few. The first training chose which are trained again, so it counts only
    where there is one other."""
    samples = [later if len(later) > 1 else [*later, _top1(table, n, steps, 0)]
               for n in networks if (later := _later(table, n, steps))]  # fmt: skip
    if len(samples) < _FEWEST:
        return None
    squares = sum(statistics.variance(sample) * (len(sample) - 1) for sample in samples)
    return round(math.sqrt(squares / sum(len(sample) - 1 for sample in samples)), 4)


def _fresh(table: Table, networks: Sequence[int], steps: Sequence[int]) -> tuple[int, tuple[Estimate | None, ...]]:
    again = [n for n in networks if _later(table, n, steps[-1])]
    if len(again) < _FEWEST:
        return len(again), (None,) * len(steps)
    columns = {str(s): [_top1(table, n, s, 0) for n in again] for s in steps}
    rankings = Rankings({**columns, "fresh": [float(np.mean(_later(table, n, steps[-1]))) for n in again]})
    return len(again), tuple(rankings.tau(str(s), "fresh") for s in steps)


def seeds_for(points: float, noise: float) -> int:
    """Seeds of each of two networks that differ by so many points, until the 95% interval of their difference lies
    above 0 in 80 of 100 comparisons; deviations count as normal and known."""
    return max(2, math.ceil(2 * (_SURE * noise / points) ** 2))


def text_table(findings: Findings) -> TextTable:
    """The rungs, to be printed by rich."""
    record = findings.fidelity
    title = f"{record.space} at {record.budget} on {record.data}, {record.recipe}: {record.networks} networks"
    shown = TextTable(
        Number("steps"), Number(f"tau with\n{record.top.steps} steps"), Number("tau with fresh\nseeds there", leaves=2),
        Number("noise of\nseeds", leaves=3), Number("between\nnetworks", leaves=4), Number("s a\ntraining", leaves=1),
        title=title,
    )  # fmt: skip
    for rung, noise, spread, fresh in zip(record.rungs, record.seed_noise, record.spread, findings.fresh, strict=True):
        tau = _cell(Estimate(rung.tau, rung.low, rung.high)) if rung is not record.top else ""
        shown.add_row(str(rung.steps), tau, _cell(fresh) if fresh else "", f"{noise:.2f}" if noise is not None else "",
                      f"{spread:.2f}", f"{rung.seconds:.1f}")  # fmt: skip
    return shown


def _cell(tau: Estimate) -> str:
    if math.isnan(tau.value):
        return "-"
    return f"{tau.value:+.2f} ({tau.low:+.2f} {tau.high:+.2f})".replace("0.", ".")


def summary(findings: Findings) -> str:
    """What the table means for a search, in words."""
    record = findings.fidelity
    lines = ["Tau is Kendall's, with its 95% interval; noise and spread are standard deviations in points."]
    if findings.left_out:
        lines.append(f"{findings.left_out} networks are left out: a training of them failed.")
    if findings.fresh[-1] is not None:
        lines.append(
            f"Fresh seeds: {findings.again} of the better third were trained again; in the last row, the ceiling."
        )
    noise = record.seed_noise[-1]
    if noise is None:
        lines.append(f"Seeds for a claim: not known, fewer than {_FEWEST} networks were trained again (--repeats 3).")
    elif noise == 0:
        lines.append("Seeds made no difference.")
    else:
        needs = ", ".join(f"+{points:g}: {seeds_for(points, noise)}" for points in CLAIMS)
        lines.append(f"Seeds that a claim needs at {record.top.steps} steps, of each network, in points: {needs}.")
    needed = [(rung.steps, rung.keep) for rung in record.rungs[:-1] if rung.keep is not None]
    if needed:
        shares, steps = (", ".join(part) for part in zip(*((f"{k:.0%}", str(s)) for s, k in needed), strict=True))
        lines.append(f"To keep {RECALL:.0%} of the good, the best {shares} must go up after {steps} steps.")
    choice = record.choose()
    if choice.steps == record.top.steps:
        lines.append(f"No shorter training is worth its time: train all candidates for {choice.steps} steps.")
    else:
        times = f", the mean of {choice.repeats} seeds" if choice.repeats > 1 else ""
        lines.append(f"Cheapest rung worth using: {choice.steps} steps{times}; the best 1/{choice.eta} go up "
                     f"to {record.top.steps}.")  # fmt: skip
    return "\n".join(lines)

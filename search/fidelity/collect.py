"""Trainings for a table: networks of a space at equal cost, each trained at a ladder of budgets. Stops and goes on at
any time, and several processes may work at one table.

A prefix of the work is already a table: whole ladders, one network after the other, and as soon as there are a few,
fresh seeds for the better third of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from blockforge import __version__
from blockforge.compiler import Architecture
from blockforge.compiler.candidates import compile_candidate
from blockforge.errors import BlockforgeError, BudgetError, DataError, OutputError, SearchError, SpecError
from blockforge.extras import MissingExtraError
from blockforge.interrupts import EvaluationInterrupts, Stopped
from blockforge.search.budget import as_budget, excess
from blockforge.search.fidelity.table import Network, Session, Setting, Store, Table, Training
from blockforge.search.objectives.network import one_thread, open_cached
from blockforge.search.objectives.steps import StepTimes, batch_size, seconds_a_step, train_steps
from blockforge.search.space.fit import fitted_answers
from blockforge.search.space.load import draw
from blockforge.spec import Hole, Spec, load
from blockforge.train import DivergedError, load_recipe

Job = tuple[int, int, int]
"""Network, steps, repeat."""
_PATIENCE = 200
"""Draws for a network."""
_FEW = 6
"""Whole ladders, from which on there is a better third."""
_PILOTS = 3
"""Networks that say what a step takes."""


@dataclass(frozen=True)
class Work:
    """What a table is to hold.

    Attributes:
        networks: how many are trained at each of `rungs`, by ascending steps.
        repeats: trainings of each of the better third of them; the others have one.
    """

    networks: int
    rungs: tuple[int, ...]
    repeats: int

    def jobs(self, table: Table | None) -> Iterator[Job]:
        """What is left to do, in the order in which it should be done."""
        known = table.trainings if table is not None else {}
        whole = [n for n in range(self.networks) if all((n, steps, 0) in known for steps in self.rungs)]
        again = [n for n in whole if self._missing(known, n, range(1, self.repeats))]
        better = sorted(whole, key=lambda n: -_reached(known[n, self.rungs[-1], 0]))[: len(whole) // 3]
        due = [n for n in better if n in again]
        begun = [n for n in due if any((n, steps, 1) in known for steps in self.rungs)]
        if len(whole) == self.networks or (len(whole) >= _FEW and len(whole) - len(again) < len(whole) // 3):
            for n in [*begun, *(n for n in due if n not in begun)]:
                yield from self._missing(known, n, range(1, self.repeats))
        for n in range(self.networks):
            yield from self._missing(known, n, range(1))

    def _missing(self, known: dict[Job, Training], network: int, repeats: range) -> list[Job]:
        jobs = [(network, steps, repeat) for repeat in repeats for steps in self.rungs]
        return [job for job in jobs if job not in known]

    def left(self, table: Table | None) -> list[int]:
        """Steps of each training that is left, about: whose turn it is for more seeds, the rest decides."""
        known = table.trainings if table is not None else {}
        first = [job[1] for n in range(self.networks) for job in self._missing(known, n, range(1))]
        more = {(n, steps, repeat) for n, steps, repeat in known if 0 < repeat < self.repeats and steps in self.rungs}
        wanted = self.networks // 3 * (self.repeats - 1)
        done = {steps: sum(job[1] == steps for job in more) for steps in self.rungs}
        return first + [steps for steps in self.rungs for _ in range(max(0, wanted - done[steps]))]


def _reached(training: Training) -> float:
    return training.top1 if training.top1 is not None else -math.inf


def seed_of(steps: int, repeat: int) -> int:
    """The seed of a training: no two lengths share one."""
    return 1000 * repeat + steps


def open_store(file: Path, setting: Setting) -> Store:
    """The file of a table, begun if there is none. Raises: SearchError if it is a table of other trainings."""
    store = Store(file)
    with store.alone():
        table = store.read()
        if table is None:
            store.append(setting)
        elif (have := table.setting) != setting:
            differ = [k for k in Setting.model_fields if getattr(have, k) != getattr(setting, k)]
            said = "; ".join(
                f"{k} {getattr(have, k)} there, {getattr(setting, k)} here" for k in differ if k != "space"
            )
            text = f"{file} is a table of other trainings ({said or 'of another space'})"
            raise SearchError(f"{text}\n  hint: write to another file")
    return store


def collect(
    store: Store, work: Work, told: Callable[[Table, Training | None], None], interrupts: EvaluationInterrupts
) -> int | None:
    """Train what the table lacks and nobody else trains. Gives the signal that ended it early, or None.

    Args:
        told: the table, and what was just added to it; None at the beginning.
    Raises: SearchError, OutputError, DataError; what one network cannot do is kept with it.
    """
    table, session = _begun(store), -1
    told(table, None)
    while True:
        training = None
        for job in work.jobs(table):
            with store.claim(job) as ours:
                if not ours:
                    continue
                session = session if session >= 0 else _begin_session(store)
                try:
                    if job[0] not in table.networks:
                        table = _add_network(store, table, job[0], interrupts)
                    with interrupts.evaluation():
                        training = _train(table.architecture(job[0]), table.setting, job, session)
                except Stopped:
                    return interrupts.received
                with store.alone():
                    store.append(training)
                break
        if training is None:  # what is left, others make
            return None
        told(table := _begun(store), training)


def _begun(store: Store) -> Table:
    table = store.read()
    if table is None:
        raise SearchError(f"{store.file} is gone\n  hint: the same command begins anew")
    return table


def _begin_session(store: Store) -> int:
    with store.alone():
        number = len(_begun(store).sessions)
        cpu = next((line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")), "")
        store.append(Session(session=number, blockforge=__version__, torch=torch.__version__,
                             cpu=cpu or platform.machine(), threads=1))  # fmt: skip
    return number


def _cpu_lines() -> Sequence[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()


def _add_network(store: Store, table: Table, number: int, interrupts: EvaluationInterrupts) -> Table:
    """Draw a network, if nobody has meanwhile. Raises: Stopped, never while the file is written."""
    with interrupts.evaluation():
        line = draw_network(table.setting, number, {known.hash for known in table.networks.values()})
    with store.alone():
        table = _begun(store)
        if number not in table.networks:
            store.append(line)
    return _begun(store)


def draw_network(setting: Setting, number: int, taken: set[str]) -> Network:
    """Network `number` of a space: drawn from a seed of its own, fitted to the budget. Raises: SearchError."""
    space, budget = load(setting.space), as_budget(setting.budget)
    for attempt in range(_PATIENCE):
        drawn = _Drawn(random.Random(f"{setting.draw_seed} {number} {attempt}"))
        try:
            compile_candidate(space, drawn.ask, mended=drawn.mend)
            fitted, widths = fitted_answers(space, drawn.answers, budget, setting.fit)
        except (SpecError, BudgetError):
            continue
        if fitted.hash in taken or any(over > 0 for over in excess(fitted, budget).values()):
            continue
        return Network(network=number, hash=fitted.hash, answers=drawn.answers, widths=widths,
                       macs=fitted.macs, params=fitted.params, depth=fitted.depth)  # fmt: skip
    text = f"{_PATIENCE} draws from '{space.name}' gave no network at {setting.fit:.0%} to 100% of {setting.budget}"
    raise SearchError(f"{text}\n  hint: ask for fewer, another --budget, or look at blockforge space {space.name}")


class _Drawn:
    """Random values of holes, each as likely as the others; where relations have changed some, those instead."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.answers: dict[str, Any] = {}
        self.changed: Mapping[str, Any] = {}

    def ask(self, hole: Hole) -> Any:
        if hole.name not in self.answers:
            self.answers[hole.name] = self.changed[hole.name] if hole.name in self.changed else draw(hole, self.rng)
        return self.answers[hole.name]

    def mend(self, changed: Mapping[str, Any]) -> Callable[[Hole], Any]:
        self.answers, self.changed = {}, changed
        return self.ask


def _train(arch: Architecture, setting: Setting, job: Job, session: int) -> Training:
    """One training, on one thread. What the network cannot do is kept with it."""
    network, steps, repeat = job
    seed, clock = seed_of(steps, repeat), time.perf_counter if torch.cuda.is_available() else time.process_time
    began, times = clock(), StepTimes(clock)
    figures: dict[str, Any]
    with one_thread():
        try:
            last = train_steps(arch, setting.data, setting.recipe, steps, seed, times)
            losses = {"loss": round(last.val_loss, 5), "train_loss": round(last.train_loss, 5)}
            figures = {"top1": round(last.top1, 3), **losses}
        except DivergedError:
            figures = {"top1": round(100 / len(open_cached(setting.data).classes), 3)}
        except (DataError, MissingExtraError, OutputError):
            raise  # no network's fault: all that follow would fail alike
        except BlockforgeError as e:
            figures = {"top1": None, "failed": str(e).partition("\n")[0][:200]}
    return Training(
        network=network, steps=steps, repeat=repeat, seed=seed, **figures, session=session,
        seconds=round(clock() - began, 2), step_ms=round(1000 * times.seconds_a_step(), 2),
    )  # fmt: skip


def expected_seconds(setting: Setting, table: Table | None, left: Sequence[int]) -> float:
    """What trainings of these lengths will take: as those of the table did, else by a few steps of a few networks."""
    by_length: dict[int, list[float]] = {}
    for training in table.trainings.values() if table is not None else ():
        by_length.setdefault(training.steps, []).append(training.seconds)
    if by_length and set(left) <= by_length.keys():
        return sum(statistics.fmean(by_length[steps]) for steps in left)
    lines = [table.networks[n] for n in sorted(table.networks)[:_PILOTS]] if table is not None else []
    while len(lines) < _PILOTS:
        lines.append(draw_network(setting, len(lines), {line.hash for line in lines}))
    begun = table or Table(setting, [])
    pilots = [Table(begun.setting, [line]).architecture(line.network) for line in lines]
    with one_thread():
        step = statistics.fmean(seconds_a_step(arch, setting.data, setting.recipe) for arch in pilots)
    evaluation = step / 3 * len(open_cached(setting.data).val) / batch_size(setting.data, setting.recipe)
    return sum(steps * step + evaluation for steps in left)


def setting_of(space: Spec, budget: str, share: float, data: str, recipe: str, draw_seed: int = 0) -> Setting:
    """The setting of a table. Raises: BudgetError, DataError, SpecError."""
    as_budget(budget), load_recipe(recipe)
    identity = json.dumps(open_cached(data).identity(), sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    tree = json.loads(json.dumps(space.tree))
    return Setting(
        space=tree, budget=budget, fit=share, data=data, data_digest=digest, recipe=recipe, draw_seed=draw_seed
    )

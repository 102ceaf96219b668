"""What `blockforge bench fidelity` does: trainings, and the record of them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from blockforge.console.progress import Display, display
from blockforge.errors import SearchError
from blockforge.files import make_folder
from blockforge.interrupts import EvaluationInterrupts
from blockforge.search.fidelity.benchmark import benchmark
from blockforge.search.fidelity.collect import Work, collect, expected_seconds, open_store, setting_of
from blockforge.search.fidelity.measured import Findings, measure
from blockforge.search.fidelity.record import write_fidelity
from blockforge.search.fidelity.table import Setting, Store, Table, Training
from blockforge.search.space.load import fingerprint, load_space
from blockforge.spec import load

_EVERY = 60.0
"""Seconds between two lines of a log."""
_SPACE, _DATA, _BUDGET, _FIT, _RECIPE = "tiny", "mnist5k", "1MMACs", 0.95, "micro"


@dataclass(frozen=True)
class Wanted:
    """What was asked for; None: what the table has, or else the default."""

    space: str | None
    data: str | None
    budget: str | None
    fit: float | None
    recipe: str | None
    overrides: tuple[str, ...]
    networks: int
    rungs: tuple[int, ...]
    repeats: int

    @property
    def work(self) -> Work:
        return Work(self.networks, self.rungs, self.repeats)

    def setting(self, table: Table | None) -> Setting:
        """Of the trainings. Raises: SpecError, DataError, BudgetError, SearchError."""
        have = table.setting if table is not None else None
        if have is None or self.space is not None or self.overrides:
            space = load_space(self.space or _SPACE, list(self.overrides) or None)
            if have is not None and fingerprint(space) == fingerprint(load(have.space)):
                space = load(have.space)
        else:
            space = load(have.space)
        return setting_of(
            space,
            self.budget or (have.budget if have else _BUDGET),
            self.fit or (have.fit if have else _FIT),
            self.data or (have.data if have else _DATA),
            self.recipe or (have.recipe if have else _RECIPE),
        )


def run(wanted: Wanted, out: Path, dry_run: bool = False) -> tuple[Findings | None, int | None]:
    """Train what is missing, measure, and write the record. Gives the figures, and the signal that ended it early.

    Raises: SearchError, SpecError, DataError, BudgetError, OutputError.
    """
    file = out.with_suffix(".jsonl")
    if file == out:
        raise SearchError(f"the trainings lie in {file}, and so the record cannot\n  hint: --out {out.stem}.json")
    table = Store(file).read()
    setting, work = wanted.setting(table), wanted.work
    left = work.left(table)
    if dry_run:
        seconds = expected_seconds(setting, table, left)
        done = len(table.trainings) if table is not None else 0
        cost = f"{len(left)} trainings of {work.networks} networks, {sum(left)} steps"
        print(f"{cost}, about {in_words(seconds)} of one core; {done} trainings are there")
        return None, None
    make_folder(out.parent)
    store, progress = open_store(file, setting), _Progress(work)
    with EvaluationInterrupts() as interrupts:
        try:
            signal = collect(store, work, progress.told, interrupts)
        finally:
            progress.shown.stop()
    table = store.read()
    assert table is not None
    if signal is not None:
        print(f"stopped; the same command goes on: {len(work.left(table))} trainings are left", file=sys.stderr)
        return None, signal
    findings = measure(table, wanted.rungs)
    write_fidelity(findings.fidelity, out)
    return findings, None


def reread(table: str, out: Path | None = None) -> tuple[Findings | None, int | None]:
    """The figures of a table that is there, as `run` gives them. Raises: SearchError, OutputError."""
    findings = measure(benchmark(table).table)
    if out is not None:
        write_fidelity(findings.fidelity, out)
    return findings, None


class _Progress:
    """How far it is, and how long it will still take, as fast as this process and its fellows have been."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.shown: Display = Display()

    def told(self, table: Table, training: Training | None) -> None:
        left = self.work.left(table)
        if training is None:
            self.began, self.steps = time.monotonic(), sum(left)
            done = len(table.trainings)
            self.shown = display("fidelity", True, seconds=_EVERY)
            self.shown.start(done + len(left), done, lambda: f"{done} trainings are there", resumed=done > 0)
            return
        made = self.steps - sum(left)
        rest = (time.monotonic() - self.began) * sum(left) / made if made > 0 else 0.0
        reached = f"{training.top1:.2f}%" if training.top1 is not None else "failed"
        text = f"network {training.network}, {training.steps} steps: {reached}"
        done = len(table.trainings)
        self.shown.update(done, text, lambda: f"{done} of {done + len(left)}: {text}; {in_words(rest)} left")


def in_words(seconds: float) -> str:
    """A time, roughly: `40 s`, `12 min`, `3.4 h`."""
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )

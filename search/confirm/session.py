"""A worker that confirms: it trains networks again until there is nothing left to train.

The trainings are a study of their own beside the search's, in the same storage: a trial is a network and a seed. As
in a search, what comes next follows from the trials alone, of two workers that claim one training the lower number goes
on, and the trial of a worker that died is free again; see `workers.session`. A training that was cut off goes on at its
last checkpoint, where its folder can be seen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from blockforge.compiler import compile_spec
from blockforge.errors import OutputError
from blockforge.files import make_folder
from blockforge.interrupts import EvaluationInterrupts, Stopped
from blockforge.search.confirm.entrants import Entrants
from blockforge.search.confirm.race import FINAL, RACE, Key, Training, next_trainings
from blockforge.search.objectives.network import open_cached
from blockforge.search.study.lease import Lease, Watch
from blockforge.search.study.pause import Pause
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import (
    MAX_RETRIES,
    OUTCOME,
    REASON,
    WORKER,
    TrialRecord,
    candidate_of,
    read_trial,
)
from blockforge.search.study.trials import close_trial, flush, make_trial, recover

CONFIRM = "confirm"
SEED, SETTINGS = "seed", "settings"
Kept = Callable[[Path, str], AbstractContextManager[Any]]
Progress = Callable[[int, int], object]
"""Told how many trainings there are, and how many there may be."""
_LOOK = 2.0
_MAX_TRACE = 4000
_TOP1, _TEST, _IMAGES = "top1", "test", "images"
KEPT = (RACE, FINAL)
"""Seeds whose weights are kept."""


def open_confirmation(storage: BaseStorage, study: str) -> Study:
    """The study of trainings beside a search's, made if there is none."""
    return optuna.create_study(
        storage=storage, study_name=f"{study}-{CONFIRM}", direction="maximize", load_if_exists=True
    )


def settings_of(plan: Plan) -> str:
    """Equal for trainings that can be compared."""
    confirm = plan.config.confirm
    text = json.dumps([plan.data, confirm.recipe, confirm.epochs])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_trainings(study: Study, plan: Plan) -> dict[Key, Training]:
    """The trainings of a plan that have ended, also those that failed for good."""
    ended: dict[Key, Training] = {}
    settings = settings_of(plan)
    for trial in study.get_trials(deepcopy=False):
        if not trial.state.is_finished() or trial.user_attrs[SETTINGS] != settings:
            continue
        record, seed = read_trial(trial, {}), int(trial.user_attrs[SEED])
        key = (str(record.hash), seed)
        figures = record.figures
        if record.state == "scored":
            ended[key] = Training(
                *key, figures[_TOP1], figures.get(_TEST), figures[_IMAGES], record.seconds
            )  # fmt: skip
        elif record.state == "failed":
            ended.setdefault(key, Training(*key, reason=record.reason))
    return ended


class ConfirmSession:
    """A worker of a confirmation.

    Args:
        watch: who of the search's workers is alive.
        folder: for what trainings leave behind; None: one that goes away with each.
        kept: keeps the folder of a training elsewhere as well, under a name, while it is trained.
    """

    def __init__(
        self,
        plan: Plan,
        study: Study,
        entered: Entrants,
        lease: Lease,
        watch: Watch,
        interrupts: EvaluationInterrupts,
        folder: Path | None,
        kept: Kept | None = None,
    ) -> None:
        self.kept = kept
        self.plan, self.study, self.entered, self.lease = plan, study, entered, lease
        self.watch, self.interrupts = watch, interrupts
        self.settings = settings_of(plan)
        self.folder = _made(folder / CONFIRM / self.settings) if folder is not None else None
        self.networks: dict[str, TrialRecord] = {e.hash: e.trial for e in entered}
        self._looked = float("-inf")

    def run(self, progress: Progress = lambda done, most: None) -> str | None:
        """Train what is missing; why it ended before, if it did."""
        pause = Pause()
        while self.interrupts.received is None:
            if time.monotonic() - self._looked >= _LOOK:
                self._looked = time.monotonic()
                recover(self.study, self.watch.dead)
            known = read_trainings(self.study, self.plan)
            missing, most = next_trainings(self.entered, known, self.plan.config.confirm.seeds)
            progress(len(known), most)
            if not missing:
                return None
            running = self._running()
            free = next((key for key in missing if key not in running), None)
            if free is None:
                pause.wait()
                continue
            pause.over()
            self.step(free)
        return "it was interrupted"

    def _running(self) -> dict[Key, int]:
        """Trainings that somebody is at, with the trial that is."""
        claimed: dict[Key, int] = {}
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs[SETTINGS] == self.settings:
                claimed.setdefault((trial.user_attrs["hash"], trial.user_attrs[SEED]), trial.number)
        return claimed

    def step(self, key: Key) -> None:
        """One training, from its claim to its outcome."""
        own = {"hash": key[0], SEED: key[1], SETTINGS: self.settings, WORKER: self.lease.id}
        if died := self._deaths(key):
            own["retries"] = died
        number = make_trial(self.study, create_trial(state=TrialState.RUNNING, user_attrs=own))
        if self._running().get(key, number) < number or key in read_trainings(self.study, self.plan):
            close_trial(self.study, number, {"state": "duplicate", REASON: "another worker trains it"})
            return
        close_trial(self.study, number, self._trained(*key))
        flush(self.study)

    def _deaths(self, key: Key) -> int:
        """How often a process has ended in this training."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        wanted = (*key, self.settings)
        same = (t for t in trials if tuple(t.user_attrs[k] for k in ("hash", SEED, SETTINGS)) == wanted)
        return min(MAX_RETRIES, sum(OUTCOME not in t.user_attrs for t in same))

    def _trained(self, network: str, seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            with (
                self.interrupts.evaluation(),
                self._own_folder(network, seed) as folder,
                self._keeping(folder) as elsewhere,
            ):
                figures = self._figures(network, seed, folder)
                if elsewhere is not None:
                    elsewhere.finished = True
        except Stopped:
            return {"state": "interrupted", REASON: "it was stopped"}
        except (Exception, SystemExit) as e:
            trace = traceback.format_exc()[-_MAX_TRACE:]
            return {"state": "failed", REASON: f"{type(e).__name__}: {e}".partition("\n")[0][:300], "trace": trace}
        if folder is not None:
            _tidy(folder, keep=seed in KEPT)
        seconds = round(time.perf_counter() - started, 3)
        return {"state": "scored", "values": [figures[_TOP1]], "figures": figures, "seconds": seconds}

    def _figures(self, network: str, seed: int, folder: Path) -> dict[str, float]:
        """Train from scratch; of those that measure the test images are looked at, this once."""
        from blockforge.search.objectives.scores.train import trained
        from blockforge.train import evaluate

        assert self.plan.data is not None
        settings, data = self.plan.config.confirm, open_cached(self.plan.data)
        trial = self.networks[network]
        recipe = self.plan.recipe_of(trial) or settings.recipe or "micro"
        result = trained(
            compile_spec(candidate_of(self.plan.space, trial)), self.plan.data, recipe, epochs=settings.epochs,
            seed=seed, out=folder, processes=getattr(self.plan.objectives[0].call, "processes", 1),
        )  # fmt: skip
        if result.signal is not None:
            signal.raise_signal(result.signal)  # the loop has ended in order; so does the search
        images = data.val
        figures = {_TOP1: result.final}
        if seed >= FINAL and data.test is not None:
            images = data.test
            figures[_TEST] = evaluate(result.model, data, recipe=recipe, split="test").top1
        return {**figures, _IMAGES: float(len(images))}

    def _keeping(self, folder: Path) -> AbstractContextManager[Any]:
        name = "/".join([self.study.study_name, self.settings, folder.name])
        return self.kept(folder, name) if self.kept is not None else contextlib.nullcontext()

    @contextlib.contextmanager
    def _own_folder(self, network: str, seed: int) -> Any:
        if self.folder is not None:
            yield self.folder / f"{network}-{seed}"
            return
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / f"{network}-{seed}"


def _made(folder: Path) -> Path | None:
    """A folder, if it can be made: on the machine of a worker it may be none."""
    try:
        make_folder(folder)
    except OutputError:
        return None
    return folder


def _tidy(folder: Path, keep: bool) -> None:
    """Leave what is small, and the weights of some: of thirty trainings all would fill a disk."""
    for file in folder.glob("*.safetensors"):
        if not keep or file.name != "model.safetensors":
            file.unlink()


def weights_of(folder: Path, plan: Plan, networks: Iterable[str]) -> dict[str, Path]:
    """The kept weights of each network, of the training that measured it before one that chose."""
    weights: dict[str, Path] = {}
    for network in networks:
        for seed in reversed(KEPT):
            if (own := folder / CONFIRM / settings_of(plan) / f"{network}-{seed}" / "model.safetensors").exists():
                weights[network] = own
                break
    return weights

"""What an objective may know of the trial that it measures: `def score(arch, trial)`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from optuna import TrialPruned

from blockforge.files import make_folder

if TYPE_CHECKING:
    import torch

    from blockforge.train import Recipe

Told = Callable[[float, int], bool]
"""Takes a value on the way and its step; whether that is the end."""


class ReachedError(Exception):
    """Ends an evaluation whose rung is cut here."""


class ObjectiveTrial:
    """The trial that is measured.

    Attributes:
        seed: the search's, for what is drawn.
        recipe: what to train by, where the search has a recipe with holes, or one that is written out: for `fit`.
        until: the step whose report ends this evaluation, on a rung that is cut there; None: the objective ends it.
        kept: whether the folder outlives this process, so that a checkpoint in it is worth its time.
    """

    def __init__(
        self,
        seed: int = 0,
        folder: Path | None = None,
        told: Told = lambda value, step: False,
        recipe: Recipe | None = None,
        until: int | None = None,
    ) -> None:
        self.until = until
        self.reached: tuple[int, float] | None = None
        self.seed, self.recipe, self._folder, self._told = seed, recipe, folder, told
        self.kept = folder is not None
        self._at: tuple[int, float] | None = None
        self._asked = False

    @property
    def device(self) -> torch.device:
        """Where to train: the GPU that this worker sees, or the CPU."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def own_folder(self) -> Path | None:
        """The same, made or not; None: the search keeps none."""
        return self._folder if self.kept else None

    @property
    def folder(self) -> Path:
        """A folder of this network on this rung. It is the same one when the trial is tried again after its process
        died or was stopped, so a checkpoint in it goes on. Where the search has no folder, it goes with the trial."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="blockforge-"))
        make_folder(self._folder)
        return self._folder

    def report(self, step: int, value: float) -> None:
        """Tell a value on the way. Optuna's tools show it, and a pruner goes by it."""
        if self.until is not None and step >= self.until:
            self.reached = self.reached or (int(step), float(value))
        if self._told(float(value), int(step)):
            self._at = int(step), float(value)

    def should_stop(self) -> bool:
        """Whether to end here: the last values were not good enough to go on, or the rung is cut here. What is returned
        then is no score; what was reported counts."""
        self._asked = self._asked or self._at is not None
        return self._at is not None or self.reached is not None

    def check(self) -> None:
        """Raises: TrialPruned if the objective has stopped because it was told to."""
        if self._asked and self._at is not None and self.reached is None:
            raise TrialPruned(f"pruned at step {self._at[0]}: {self._at[1]:.4g}")

    def legacy_report(self, value: float, step: int) -> None:
        """The other form, `report(value, step)`, which ends the evaluation by itself.

        Raises: TrialPruned, ReachedError.
        """
        self.report(step, value)
        if self.should_stop():
            self.check()
            raise ReachedError

    def done(self) -> None:
        """Remove what stands in the folder: the value is known."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._folder is not None and self.kept:
            with contextlib.suppress(OSError):  # those of other objectives stand beside it
                self._folder.parent.rmdir()

    @contextlib.contextmanager
    def measured(self) -> Iterator[ObjectiveTrial]:
        """While it is measured; a folder that nobody wanted to keep goes at the end."""
        try:
            yield self
        finally:
            if not self.kept:
                self.done()

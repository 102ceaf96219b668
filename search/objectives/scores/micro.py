"""Seconds, or steps, of real training on small real data."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from blockforge.compiler import Architecture
from blockforge.errors import SearchError
from blockforge.search.objectives.network import shrunk
from blockforge.search.objectives.steps import FIXED, seconds_a_step, train_steps
from blockforge.train import Recipe, load_recipe

if TYPE_CHECKING:
    from blockforge.search.objectives.trial import ObjectiveTrial


@dataclass(frozen=True)
class Micro:
    """Top-1 accuracy in percent after a little training, on evaluation images; the learning rate ends at its lowest.

    By `steps` every candidate sees the same images, and equal seeds give equal values on one machine with as many
    threads. By `seconds` a candidate makes as many steps as it has time for, measured on a few steps before: slow
    networks see less, and values differ a little from run to run. Both give `steps` and `loss` as figures beside.

    Attributes:
        repeats: trainings, with seeds one after the other, whose mean is the value.
        seconds: of training, evaluation apart.
        steps: of the optimiser, in place of seconds.
        data: a source, as for `blockforge train`. Networks of other input channels get grey repeated, or colour
            weighed to grey.
        size: longer side of the images; None: the spec's. See `shrunk`.
        recipe: whose batch size, optimiser and learning rate hold; None: that of the search (`--recipe`) where it has
            holes, else micro.
        seed: of the initialisation and of everything drawn in training.
    """

    name: ClassVar[str] = "micro"
    cost: ClassVar[float] = 20.0
    reports: ClassVar[bool] = False
    fixed: ClassVar[tuple[str, ...]] = FIXED
    """Keys of a recipe that it does not go by."""
    seconds: float = 10.0
    steps: int | None = None
    data: str = "mnist5k"
    size: int | None = None
    recipe: str | None = None
    seed: int = 0
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.seconds <= 0 or (self.steps is not None and self.steps < 1):
            raise SearchError("micro trains for no time\n  hint: micro:seconds=10 or micro:steps=200")
        if self.repeats < 1:
            raise SearchError(f"micro cannot train {self.repeats} times\n  hint: micro:steps=200,repeats=2")

    @property
    def about(self) -> str:
        """What a ranking by it is."""
        length = f"{self.steps} steps" if self.steps is not None else f"{self.seconds:g} s"
        seeds = f", the mean of {self.repeats} seeds" if self.repeats > 1 else ""
        return f"top-1 on {self.data} after {length} of training{seeds}"

    def __call__(self, arch: Architecture, trial: ObjectiveTrial | None = None) -> dict[str, float]:
        """Raises: DataError, SpecError; DivergedError if the loss is no number any more."""
        arch = shrunk(arch, self.size) if self.size is not None else arch
        own = trial.recipe if trial is not None else None
        recipe = own or load_recipe(self.recipe or "micro")
        steps = self.steps if self.steps is not None else self._affordable(arch, recipe)
        ends = [train_steps(arch, self.data, recipe, steps, self.seed + i) for i in range(self.repeats)]
        top1, loss = (statistics.fmean(values) for values in ([e.top1 for e in ends], [e.val_loss for e in ends]))
        return {self.name: top1, "loss": loss, "steps": float(steps)}

    def _affordable(self, arch: Architecture, recipe: Recipe) -> int:
        """Steps that take the seconds."""
        return max(1, int(self.seconds / seconds_a_step(arch, self.data, recipe, self.seed)))


micro = Micro

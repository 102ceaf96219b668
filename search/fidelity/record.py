"""What a short training is worth, as `blockforge bench fidelity` measured it: a file that a search reads.

Rungs and repeats of a search are chosen from it and not guessed: of all ways to spend the same time, the one that is
expected to find the best network.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from blockforge.errors import SearchError
from blockforge.files import write_text
from blockforge.spec.slots import Model

ETAS = (2, 3, 4, 6, 9)
REPEATS = (1, 2, 3)
BUDGET = 20
"""Trainings at the top rung that a search is thought to have time for."""
_DRAWS = 2000
_MARGIN = 0.02
"""Of two ways whose results differ by less, in deviations of the networks, the simpler one is taken."""
Tau = Annotated[float, Field(ge=-1, le=1)]


class Rung(Model):
    """Trainings of one length."""

    steps: Annotated[int, Field(ge=1)]
    """Of the optimiser, with a schedule of their own."""
    tau: Tau
    """Kendall's tau of these accuracies, one training each, with those of the top rung."""
    low: Tau
    """Lower end of its 95% bootstrap interval over networks."""
    high: Tau
    """Upper end."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Of a training, the median over networks, evaluation included."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """The smallest share of the candidates, the best after it, that holds 90% of those that are good at the top rung;
    none: too few are good to tell."""


class Choice(NamedTuple):
    """How a search should train its candidates.

    Attributes:
        steps: of the first rung; those of the top rung where nothing shorter is worth its time.
        repeats: trainings of each candidate there, with different seeds; their mean counts.
        eta: the best 1/eta of it go up to the top rung; 1 where there is one rung.
    """

    steps: int
    repeats: int
    eta: int


class Fidelity(Model):
    """Rungs, the cheapest first, and the noise of seeds on each.

    Raises: ValidationError where it does not agree with itself.
    """

    space: str
    """Name of the space that the networks were drawn from."""
    data: str
    """What they were trained on."""
    recipe: str
    """What they were trained by."""
    budget: str
    """What each of them costs at most."""
    networks: Annotated[int, Field(ge=3)]
    """How many whole ladders the figures rest on."""
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)]
    """By ascending steps; the last one is what the others are compared with."""
    seed_noise: tuple[Annotated[float, Field(ge=0)] | None, ...]
    """Standard deviation between the seeds of one network, in points, a rung; none: trained with one seed only."""
    spread: tuple[Annotated[float, Field(ge=0)], ...]
    """Standard deviation between networks trained once, in points, a rung."""

    @model_validator(mode="after")
    def _agrees(self) -> Fidelity:
        steps = [rung.steps for rung in self.rungs]
        if steps != sorted(set(steps)):
            raise PydanticCustomError("rungs", "rungs have ascending steps, not {steps}", {"steps": str(steps)})
        if not len(steps) == len(self.seed_noise) == len(self.spread):
            raise PydanticCustomError("rungs", "each rung has one seed_noise and one spread")
        return self

    @property
    def top(self) -> Rung:
        """The rung that the others stand for."""
        return self.rungs[-1]

    def choose(self, budget: float = BUDGET) -> Choice:
        """The way to spend the time of `budget` trainings at the top rung that is expected to find the best network.

        Of each rung the lower end of tau's interval is believed. Accuracies of a rung and of the top count as normal,
        with the correlation sin(pi / 2 * tau); a mean of seeds is as much surer as `seed_noise` says. Something
        cheaper than the top rung is chosen only if it beats training everything there by more than a margin, and never
        fewer go up than `keep` says: what a first rung throws out is lost.
        """
        best, expected = Choice(self.top.steps, 1, 1), _expected_best(max(1, int(budget)), 1, 1.0) + _MARGIN
        for choice, candidates, correlation in self._ways(budget):
            expected_best = _expected_best(candidates, choice.eta, correlation)
            if expected_best > expected + (_MARGIN if best.eta > 1 else 0):
                best, expected = choice, expected_best
        return best

    def _ways(self, budget: float) -> Iterator[tuple[Choice, int, float]]:
        """Ways with a first rung below the top, the simpler ones first: each with its candidates and correlation."""
        for index, rung in enumerate(self.rungs[:-1]):
            if rung.low <= 0:
                continue
            for repeats in REPEATS if self.seed_noise[index] is not None else (1,):
                for eta in (eta for eta in ETAS if rung.keep is None or rung.keep <= 1 / eta):
                    seconds = repeats * rung.seconds + self.top.seconds / eta
                    candidates = int(budget * self.top.seconds / seconds)
                    if candidates >= eta:
                        yield Choice(rung.steps, repeats, eta), candidates, self._correlation(index, repeats)

    def _correlation(self, index: int, repeats: int) -> float:
        """Of the mean of `repeats` trainings at a rung with the top rung."""
        one, noise, spread = math.sin(math.pi / 2 * self.rungs[index].low), self.seed_noise[index], self.spread[index]
        if noise is None or repeats == 1 or not spread:
            return one
        share = min(1.0, noise**2 / spread**2)  # of the variance between networks that seeds make
        return min(1.0, one / math.sqrt(1 - share + share / repeats))


def _expected_best(candidates: int, eta: int, correlation: float) -> float:
    """The best of those that go up, in deviations of the networks from their mean: drawn, with fixed seeds."""
    rng = np.random.default_rng(0)
    true_DN = rng.standard_normal((_DRAWS, candidates))
    seen_DN = correlation * true_DN + math.sqrt(1 - correlation**2) * rng.standard_normal((_DRAWS, candidates))
    up = max(1, candidates // eta)
    chosen_DU = np.argpartition(-seen_DN, up - 1, axis=1)[:, :up]
    return float(np.take_along_axis(true_DN, chosen_DU, 1).max(1).mean())


def read_fidelity(file: str | os.PathLike[str]) -> Fidelity:
    """A file that `bench fidelity` wrote. Raises: SearchError."""
    hint = "blockforge bench fidelity --out FILE writes one"
    try:
        return Fidelity.model_validate_json(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise SearchError(
            f"cannot read {os.fspath(file)}: {getattr(e, 'strerror', None) or e}\n  hint: {hint}"
        ) from None
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise SearchError(
            f"{os.fspath(file)} is no record of fidelity: {where}: {first['msg']}\n  hint: {hint}"
        ) from None


def write_fidelity(fidelity: Fidelity, file: str | os.PathLike[str]) -> None:
    """Write it whole or not at all. Raises: OutputError."""
    write_text(Path(file), json.dumps(fidelity.model_dump(mode="json"), indent=1) + "\n")

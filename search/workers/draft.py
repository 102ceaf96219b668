"""A candidate in the making. It reaches the storage as one record when its network is known, so that no other worker
ever sees half a candidate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from blockforge.search.samplers.choose import Choose
from blockforge.search.space.parameters import distribution_of, label_of, only_value, scalar_of
from blockforge.spec import Hole


class Draft:
    """What the compiler asks for, and what it was answered.

    Attributes:
        choose: gives the values.
        random: values are drawn, whatever is known of other candidates.
        guess: what is thought of it, if it was chosen from several.
        params, distributions: what Optuna keeps of the candidate so far.
    """

    def __init__(self, choose: Choose | None = None) -> None:
        self.choose, self.random = choose, False
        self.guess: list[float] | None = None
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.answers: dict[str, Any] = {}
        self.mended: Mapping[str, Any] = {}

    def mend(self, answers: Mapping[str, Any]) -> Callable[[Hole], Any]:
        """Begin anew with answers that relations have changed: what is kept of the candidate is what it has become."""
        self.params, self.distributions, self.answers, self.mended = {}, {}, {}, answers
        return self.ask

    def ask(self, hole: Hole) -> Any:
        """The label or number for a hole; the same one whenever it is met."""
        if hole.name not in self.answers:
            distribution = distribution_of(hole)
            if hole.name in self.mended:
                value = scalar_of(hole, self.mended[hole.name])
            elif distribution.single():
                value = only_value(distribution)
            else:
                assert self.choose is not None
                value = self.choose(hole.name, distribution)
            self.params[hole.name], self.distributions[hole.name] = value, distribution
            self.answers[hole.name] = label_of(hole, value)
        return self.answers[hole.name]

    def trial(self, state: TrialState, **more: Any) -> FrozenTrial:
        """The record of it, for the storage."""
        return create_trial(state=state, params=self.params, distributions=self.distributions, **more)

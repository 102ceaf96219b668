"""Any candidate, whatever came before."""

from __future__ import annotations

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial

from blockforge.search.samplers.base import ProposalSampler
from blockforge.search.samplers.choose import Choose, uniform
from blockforge.search.samplers.memory import Memory


class Uniform(ProposalSampler):
    """Random search: every value of a hole has the same chance."""

    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        return uniform(np.random.default_rng(seeds))

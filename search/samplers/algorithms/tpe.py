"""Optuna's TPE with a bounded cost a proposal.

Optuna computes, for each group of holes that occur together, which trials are good and what their values are, each
time anew and from all trials. Spaces with choices inside choices have dozens of groups. Here the groups grow with
the trials, values are looked up once a trial, and the split is made once a proposal. The proposals are Optuna's
own (a test compares them), as long as the sample holds all trials; see `Memory.sample`.
"""

from __future__ import annotations

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from blockforge.search.optuna_private import OneProposal
from blockforge.search.samplers.base import ProposalSampler, proposal_of
from blockforge.search.samplers.choose import Choose, uniform
from blockforge.search.samplers.memory import Memory

STARTUP = 10
"""Finished trials before which candidates are random: all samplers of one seed then propose the same, so that a
comparison of them begins with the same candidates."""


class BoundedTPE(ProposalSampler):
    """Multivariate, grouped TPE for one objective or several, whose proposals do not take longer with the trials."""

    def propose(self, study: Study, trial: FrozenTrial, memory: Memory, seeds: list[int]) -> Choose:
        sample = memory.sample(trial.number)
        if sum(seen.state != TrialState.RUNNING for seen in sample) < STARTUP:
            return uniform(np.random.default_rng(seeds))
        seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        return proposal_of(OneProposal(sample, memory.groups, seed), study, trial)

"""A first proposal, before there is a study."""

from __future__ import annotations

import optuna

from blockforge.search.samplers.registry import goes_through_all, is_handed_over, make_pruner, make_sampler
from blockforge.search.study.config import setting
from blockforge.search.study.plan import Plan
from blockforge.search.workers.checks import compiled
from blockforge.search.workers.draft import Draft
from blockforge.search.workers.proposals import Proposals


def try_proposals(plan: Plan) -> None:
    """Make the sampler and the pruner, and a first proposal in a study that is forgotten: a slip in a name or an option
    leaves no study behind, which would then refuse what is right.

    A sampler that was handed over is not asked: it may count.
    Raises: SearchError.
    """
    named = plan.config.proposals
    with setting("proposals", "sampler"):
        sampler = make_sampler(named.sampler, plan.seed)
        if not is_handed_over(named.sampler):
            proposals, draft = Proposals(optuna.create_study(directions=plan.directions), sampler), Draft()
            proposals.begin(draft, [plan.seed, 0], 0)
            compiled(plan, draft, goes_through_all(sampler))
    with setting("proposals", "pruner"):
        make_pruner(named.pruner)

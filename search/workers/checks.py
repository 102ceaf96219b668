"""A candidate before anything is evaluated: compiled, fitted, held against the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.candidates import compile_candidate
from blockforge.errors import BudgetError, SpecError
from blockforge.kernels.costs import CostError
from blockforge.search.budget import cost_of, excess, over, training_bytes
from blockforge.search.space.fit import fitted_answers
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import arch_attributes, candidate_name
from blockforge.search.workers.draft import Draft
from blockforge.spec.relations.require import violations
from blockforge.units import TRAINING, Budget

if TYPE_CHECKING:
    from blockforge.train import Recipe


@dataclass
class Candidate:
    """A draft, and what became of it so far.

    Attributes:
        arch: its network; None: there is none.
        recipe: what it is trained by, where candidates have recipes of their own.
        widths: what fitting it to the budget changed.
        attrs: what is kept of the network.
        limits: how far it lies over each limit (above 0) or under it.
        outcome: why it is not evaluated; None: it may be.
        pending: what its sampler has noted with it.
    """

    draft: Draft
    arch: Architecture | None = None
    recipe: Recipe | None = None
    widths: Mapping[str, Any] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    outcome: dict[str, Any] | None = None
    pending: FrozenTrial | None = None

    @property
    def name(self) -> str | None:
        """What is evaluated once: the network, with its recipe if it has one of its own."""
        network = self.arch.hash if self.arch is not None else None
        return candidate_name(network, self.recipe.hash if self.recipe is not None else None)


def compiled(plan: Plan, draft: Draft, as_drawn: bool) -> Candidate:
    """A draft with its network, or why there is none.

    Args:
        as_drawn: relations of the space change no answer.
    """
    try:
        arch, widths = _network(plan, draft, as_drawn)
        recipe = plan.recipe.asked(draft.ask) if plan.recipe is not None else None
    except SpecError as e:
        first = e.diagnostics[0]
        if all(d.code == "require" for d in e.diagnostics):
            limits = {f"require[{v.index}]": v.by for v in violations(plan.space.lifted, draft.answers)}
            return Candidate(draft, limits=limits, outcome={"state": "excluded", "reason": str(first.message)})
        return Candidate(draft, limits={"spec": 1.0}, outcome={"state": "invalid", "reason": str(first.message)})
    except BudgetError as e:  # no widths of it lie within the budget
        outcome = {"state": "unfitted", "reason": str(e).partition("\n")[0]}
        return Candidate(draft, limits={"fit": 1.0}, outcome=outcome)
    return Candidate(draft, arch, recipe, widths)


def _network(plan: Plan, draft: Draft, as_drawn: bool) -> tuple[Architecture, dict[str, Any]]:
    """The network of a draft, fitted to the budget if that is wanted, and the widths that this changed."""
    if as_drawn:
        arch = compile_spec(plan.space, ask=draft.ask)
    else:
        arch = compile_candidate(plan.space, draft.ask, mended=draft.mend)
    if plan.fit is None:
        return arch, {}
    return fitted_answers(plan.space, draft.answers, plan.budget, plan.fit)


def keeps_counted(arch: Architecture, budget: Budget) -> bool:
    """Whether a network keeps the limits that its graph tells of; the others take a measurement or a rehearsal."""
    return all(cost_of(arch, name) <= limit for name, limit in budget.limits.items())


def held_against(candidate: Candidate, budget: Budget) -> Candidate:
    """The candidate with what it costs and how that lies to each limit; one that is over it is not evaluated."""
    arch, widths = candidate.arch, candidate.widths
    assert arch is not None
    try:
        candidate.limits = excess(arch, budget)
    except CostError as e:  # a block that does not run on the meta device
        candidate.attrs, candidate.limits = arch_attributes(arch, widths), {TRAINING: 1.0}
        candidate.outcome = {"state": "invalid", "reason": str(e).partition("\n")[0]}
        return candidate
    training = training_bytes(arch, budget) if TRAINING in candidate.limits else None
    recipe = candidate.recipe.hash if candidate.recipe is not None else None
    candidate.attrs = arch_attributes(arch, widths, training, recipe)
    if any(share > 0 for share in candidate.limits.values()):
        candidate.outcome = {"state": "refused", "reason": over(arch, budget)}
    return candidate

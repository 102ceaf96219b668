"""What a network is to be brought to: budgets, or shares of its multiply-adds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from blockforge.compiler import Architecture
from blockforge.errors import BudgetError
from blockforge.search.budget import cost_of
from blockforge.units import Budget, parse_budget

FAMILY = 8
"""Budgets of a range, its ends included."""
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*%")


def targets(texts: Sequence[str], arch: Architecture) -> list[tuple[str, Budget]]:
    """Budgets with their names: `3GFLOPs,20Mparams`, `60%` of the network's multiply-adds, or `100%..30%`, which is a
    family of eight.

    Raises: BudgetError if one cannot be read, or says nothing.
    """
    if not texts:
        raise BudgetError("no budget is given\n  hint: 3GFLOPs,20Mparams, 60% of the network's MACs, or 100%..30%")
    budgets: dict[str, Budget] = {}
    for text in texts:
        if ".." in text:
            first, last = (_share(end) for end in text.split("..", 1))
            steps = [first + (last - first) * i / (FAMILY - 1) for i in range(FAMILY)]
            budgets |= {f"{share:.4g}%": _of(arch, share) for share in steps}
        elif "%" in text:
            budgets[f"{_share(text):.4g}%"] = _of(arch, _share(text))
        else:
            budgets[text] = parse_budget(text)
    return list(budgets.items())


def to_save(arch: Architecture, budget: Budget) -> dict[str, int]:
    """What must go of each cost that is a sum over slots, where a budget limits it."""
    return {cost: max(0, cost_of(arch, cost) - limit) for cost, limit in budget.limits.items() if is_sum(cost)}


def is_sum(cost: str) -> bool:
    """Whether a cost of the compiled graph is a sum over its nodes; memory is the most that lives at once."""
    return not cost.endswith("activation_bytes")


def _share(text: str) -> float:
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise BudgetError(
            f"'{text}' is no share of a network's MACs\n  hint: 60%, or 100%..30% for a family of {FAMILY}"
        )
    return float(match[1])


def _of(arch: Architecture, share: float) -> Budget:
    return replace(Budget(), macs=int(arch.macs * share / 100))

"""`blockforge bench replay`: what a table of trainings says of the ways to search, in three tables' worth of lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType

from blockforge.console.prose import Prose
from blockforge.search.fidelity.benchmark import Benchmark
from blockforge.search.replay import claims as said
from blockforge.search.replay import searches as searched
from blockforge.search.replay import tail as thrown

_MANY = 50
"""So many times the searches tell how often "better" is said by mistake."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """All that is replayed on a table."""

    table: Benchmark
    searches: searched.Searches
    tail: thrown.Tail
    claims: said.Claims
    many_claims: said.Claims

    def report(self) -> Group:
        """To be printed by rich."""
        parts: list[RenderableType] = [Prose(repr(self.table), "bold"), searched.text_table(self.searches)]
        parts += map(Prose, searched.summary(self.searches))
        parts += [thrown.text_table(self.tail), *map(Prose, thrown.summary(self.tail))]
        return Group(*parts, *map(Prose, said.summary(self.claims, self.many_claims)))

    def as_dict(self) -> dict[str, Any]:
        """The same figures, for JSON."""

        def by_kind(of: Mapping[tuple[str, bool], searched.Values]) -> dict[str, Any]:
            return {f"{s}{', screened' if screened else ''}": v.round(4).tolist() for (s, screened), v in of.items()}

        return {
            "table": repr(self.table), "top": self.searches.top,
            "values": by_kind(self.searches.values), "means": by_kind(self.searches.means),
            "tail": dataclasses.asdict(self.tail),
            "claims": [dataclasses.asdict(c) for c in (self.claims, self.many_claims)],
        }  # fmt: skip


def replay(table: Benchmark, number: int, pool: int, told: Callable[[str], object] = lambda line: None) -> Replayed:
    """Everything on a table.

    Args:
        number: searches of each kind.
        pool: proposals of which a screen chooses.
        told: is given a line where a search has ended.
    """
    searches = searched.replay_searches(table, number, pool, told)
    few, many = (said.replay_claims(table, n) for n in (number, _MANY * number))
    return Replayed(table, searches, thrown.measure_tail(table), few, many)

"""The screen of a search: of several proposals for one trial it names the one that is to be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blockforge.compiler import Architecture, compile_spec
from blockforge.search.screen.features import features
from blockforge.search.screen.predictor import Predictor, likeliest
from blockforge.search.study.history import History
from blockforge.search.study.plan import Plan
from blockforge.search.study.records import TrialRecord, candidate_of, losses

FEWEST = 10
"""Scored networks before which nothing is screened: where samplers begin to learn, too."""
_MOST = 256
"""Networks that are learnt from, the latest: with more, each proposal would take longer."""


class Screen:
    """Learns from a study's trials whenever some have ended. It keeps nothing that they do not say, so that a search
    that was stopped goes on as it would have without the stop, and all workers learn from all trials."""

    def __init__(self, plan: Plan, history: History) -> None:
        self.plan, self.history = plan, history
        self._rows: dict[str, dict[str, float]] = {}
        self._known: tuple[int, ...] = ()
        self._predictor: Predictor | None = None

    @property
    def ready(self) -> bool:
        """Whether there is enough to learn from."""
        return len(self.history.rungs[self.history.level]) >= FEWEST

    def choose(self, pool: Sequence[tuple[Architecture, Mapping[str, Any]]], seed: int) -> tuple[int, list[float]]:
        """The place of the best in a pool, and what is thought of it: its place among the known, for each objective.

        Args:
            pool: networks with the answers that made them.
        """
        known = sorted(self.history.rungs[self.history.level], key=lambda record: record.number)[-_MOST:]
        rows = [self._known_row(record) for record in known]
        numbers = tuple(record.number for record in known)
        if self._predictor is None or numbers != self._known:
            values = -losses(known, self.plan.signs)
            self._predictor, self._known = Predictor(rows, values), numbers
            self._rows = {str(record.candidate): row for record, row in zip(known, rows, strict=True)}
        places = self._predictor.predict([self._row(arch, answers) for arch, answers in pool])
        best = likeliest(places, seed)
        return best, [round(float(place), 4) for place in places[best].clip(0, 1)]

    def _known_row(self, record: TrialRecord) -> dict[str, float]:
        """The figures of a candidate, whose network is compiled once in a process."""
        if (row := self._rows.get(str(record.candidate))) is None:
            row = self._row(compile_spec(candidate_of(self.plan.space, record)), record.holes)
        return row

    def _row(self, arch: Architecture, answers: Mapping[str, Any]) -> dict[str, float]:
        """The figures of a network, and those of its recipe if candidates have recipes of their own."""
        return {**features(arch), **{
            name: float(hole.index(answers[name])) if hole.kind == "choice" else float(answers[name])
            for name, hole in self.plan.recipe_holes.items() if name in answers
        }}  # fmt: skip

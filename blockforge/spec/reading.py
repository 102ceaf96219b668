"""What `from` names, against the stages that stand before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from blockforge.errors import Loc, Path, Report, did_you_mean
from blockforge.spec.plan import Stage
from blockforge.spec.reporting import NOWHERE, Origins, report_at
from blockforge.spec.scope import FailedError
from blockforge.spec.sources import INPUT, STEM


class StageNames:
    """The stages of a spec by name.

    Attributes:
        written: the stages as they are written.
        others: the names of the other maps.
    """

    def __init__(self, written: Sequence[Any], report: Report) -> None:
        self.written, self.report = written, report
        self.others: tuple[str, ...] = (INPUT, STEM)
        self.known: dict[str, int] = {}

    def add(self, stage: int, tree: Any) -> None:
        """A stage, as it is written with names of `let` replaced. Reports a name that is taken."""
        name = tree.get("name") if isinstance(tree, Mapping) else None
        if not isinstance(name, str):
            return
        path, related = ("stages", stage, "name"), list[tuple[str, Loc]]()
        if name in (INPUT, STEM):
            text, hint = f"'{name}' is the name of another map", "give the stage another name"
        elif name in self.known:
            text, hint = f"stage {self.known[name]} has the name '{name}' too", "give one of them another name"
            loc = self.report.locs.value(("stages", self.known[name], "name"))
            related = [(f"stage {self.known[name]}", loc)] if loc else []
        else:
            self.known[name] = stage
            return
        report_at(self.report, NOWHERE, "name", text, path, hint=hint, related=related)

    def source(self, given: int | str, before: int, path: Path, origins: Origins) -> int | str:
        """The map that stage `before`, or one that would stand there, reads by this name or number.

        Raises: FailedError.
        """
        if given in self.others:
            return given
        stage = self.known.get(given) if isinstance(given, str) else given
        if stage is not None and 0 <= stage < before:
            return stage
        if given == STEM:
            text = "there is no stem: stem is none"
        elif stage == before:
            text = f"stage {before} reads itself"
        elif isinstance(given, int) and not 0 <= given < len(self.written):
            text = f"there is no stage {given}"
        elif isinstance(given, int) or given in self._later(before):
            text = f"'{given}' stands behind what reads it" if isinstance(given, str) else f"stage {given} stands later"
        else:
            text = f"no stage is called '{given}'"
        report_at(self.report, origins, "from", text, path, hint=self._in_scope(given, before))
        raise FailedError

    def stage(self, given: int | str, path: Path) -> int:
        """The number of any stage. Raises: FailedError."""
        stage = self.known.get(given) if isinstance(given, str) else given
        if stage is None or not 0 <= stage < len(self.written):
            what = f"no stage is called '{given}'" if isinstance(given, str) else f"there is no stage {given}"
            report_at(self.report, NOWHERE, "features", what, path, hint=self._in_scope(given, len(self.written), ()))
            raise FailedError
        return stage

    def _later(self, before: int) -> set[str]:
        """The names of stages that were not read yet."""
        later = self.written[before + 1 :]
        return {str(tree["name"]) for tree in later if isinstance(tree, Mapping) and "name" in tree}

    def _in_scope(self, given: int | str, before: int, others: Sequence[str] | None = None) -> str:
        numbers = [f"{0} to {before - 1}" if before > 1 else "0"] if before else []
        names = [name for name, stage in self.known.items() if stage < before]
        hint = did_you_mean(str(given), [*(self.others if others is None else others), *names], what="names here")
        return f"{hint}; stages {numbers[0]}" if numbers else hint


def layers_before(stages: Sequence[Stage]) -> list[int]:
    """How many layers stand before each layer of the network, on the longest way from the image to it."""
    ends: dict[int | str, int] = {}
    before: list[int] = []
    for stage in stages:
        start = max((ends.get(source.of, 0) for source in stage.reads.sources), default=0)
        before += range(start, start + len(stage.layers))
        ends[stage.index] = start + len(stage.layers)
    return before


def unread(stages: Sequence[Stage], read: Collection[int]) -> list[Stage]:
    """The stages whose maps nothing reads. `read`: those that are read beside what stages do."""
    sources = {source.of for stage in stages for source in stage.reads.sources}
    return [stage for stage in stages if stage.index not in sources and stage.index not in read]

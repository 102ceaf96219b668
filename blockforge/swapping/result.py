"""What `swap` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge.compiler.lowering.backbone import Backbone
from blockforge.console.csv_text import to_csv
from blockforge.console.text_table import Label, Number, TextTable
from blockforge.files import make_folder, write_text
from blockforge.saving import save_model
from blockforge.swapping.others import Other
from blockforge.swapping.scores import Score
from blockforge.swapping.slots import Alternative
from blockforge.units import format_count


@dataclass(frozen=True)
class Answer:
    """The network for a budget.

    Attributes:
        budget: as it was written.
        model: with the parent's weights; its spec is `model.spec`.
        chosen: what changed.
        expected: KL of all changes together as single scores and pairs say, see `pairs`.
        score: measured, of all together, on the images that alternatives are scored by, before any fine-tuning.
        tested: on the test images, at the end; None: they were not touched.
    """

    budget: str
    model: Backbone
    chosen: tuple[Alternative, ...]
    expected: float
    score: Score
    tested: Score | None = None

    @property
    def folder(self) -> str:
        """Where it is saved, in the folder of the run."""
        return (
            self.budget.replace("%", "pct").replace(",", "_").replace("=", "_").replace(":", "_").replace("@", "_at_")
        )

    def row(self, parent: Backbone) -> dict[str, Any]:
        arch = self.model.arch
        return {
            "budget": self.budget,
            "macs": arch.macs,
            "share": round(100 * arch.macs / parent.arch.macs, 1),
            "params": arch.params,
            "thinner": sum(not a.is_skip for a in self.chosen),
            "left_out": sum(a.is_skip for a in self.chosen),
            "expected_kl": round(self.expected, 5),
            "kl": round(self.score.kl, 5),
            "agreement": round(self.score.agreement, 2),
            "top1": None if self.score.top1 is None else round(self.score.top1, 2),
            "test_agreement": None if self.tested is None else round(self.tested.agreement, 2),
            "test_top1": None if self.tested is None or self.tested.top1 is None else round(self.tested.top1, 2),
            "folder": self.folder,
        }


def top1_text(top1: float | None) -> str:
    """As people read it; - where it cannot be told."""
    return "-" if top1 is None else f"{top1:.1f}"


def text_table(rows: Sequence[Mapping[str, Any]]) -> TextTable:
    """The answers as `SwapResult.rows` gives them, to be printed by rich."""
    columns = (Number("MACs"), Number("of them", 4), Number("params", 3), Number("thinner", 1), Number("left out", 2))
    tested = [Number("test top-1")] if any(row["test_top1"] is not None for row in rows) else []
    table = TextTable(Label("budget"), *columns, Number("KL"), Number("agrees"), Number("top-1"), *tested)
    for row in rows:
        costs = (format_count(row["macs"]), f"{row['share']:.1f}%", format_count(row["params"]))
        figures = [f"{row['kl']:.4f}", f"{row['agreement']:.1f}%", top1_text(row["top1"])]
        last = [top1_text(row["test_top1"])] * len(tested)
        table.add_row(row["budget"], *costs, str(row["thinner"]), str(row["left_out"]), *figures, *last)
    return table


@dataclass(frozen=True)
class SwapResult:
    """A network brought to budgets.

    Attributes:
        parent: the network, and `own`, its accuracy on the same images.
        alternatives, scores: what may stand in its slots, and what each costs alone.
        answers: a network a budget.
        others: what they stand beside.
        tested: the parent on the test images; None: they were not touched.
    """

    parent: Backbone
    own: Score
    alternatives: tuple[Alternative, ...]
    scores: tuple[Score, ...]
    answers: tuple[Answer, ...]
    others: tuple[Other, ...] = ()
    tested: Score | None = None

    def rows(self) -> list[dict[str, Any]]:
        """A row a budget."""
        return [answer.row(self.parent) for answer in self.answers]

    def scored(self) -> list[dict[str, Any]]:
        """A row an alternative."""
        return [
            {
                "slot": a.slot.name,
                "op": a.slot.op,
                "instead": a.label,
                "macs_saved": a.saved["macs"],
                "params_saved": a.saved["params"],
                "kl": s.kl,
                "kl_error": s.error,
                "agreement": s.agreement,
                "top1": s.top1,
            }
            for a, s in zip(self.alternatives, self.scores, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write a folder a budget, as `save_model` does, tables, `answers.csv` and `alternatives.csv`, and the report.

        Raises: OutputError.
        """
        from blockforge.swapping.report import write_report

        make_folder(folder)
        for answer in self.answers:
            answer.model.classes = self.parent.classes
            save_model(answer.model, folder / answer.folder)
        write_text(folder / "answers.csv", to_csv(self.rows()))
        write_text(folder / "alternatives.csv", to_csv(self.scored()))
        write_report(self, folder)

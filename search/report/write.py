"""Writes what a search leaves in its folder. Every file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from blockforge.figures import write_figure
from blockforge.files import make_folder, write_text
from blockforge.saving import spec_text
from blockforge.search.report.files import OURS, best_files, failure_text, trials_csv
from blockforge.search.result import SearchResult
from blockforge.search.study.folder import BEST, FAILURES, PLOT, REPORT, TRIALS


def write_results(result: SearchResult, folder: Path) -> None:
    """Write `trials.csv`, `best/*.yaml`, `pareto.png` and `report.html`; `failures.txt` where trials failed."""
    from blockforge.search.report.html import page
    from blockforge.search.report.plot import plot

    write_text(folder / TRIALS, trials_csv(result))
    if failed := [t for t in result.trials if t.state == "failed"]:
        write_text(folder / FAILURES, "\n".join(failure_text(t) for t in failed))
    make_folder(folder / BEST)
    names = best_files(result)
    by_number = {t.number: t for t in result.trials}
    for number, name in names.items():
        write_text(folder / BEST / name, spec_text(result.spec(by_number[number])))
    for old in (folder / BEST).iterdir():
        if OURS.fullmatch(old.name) and old.name not in names.values():
            old.unlink()
    if result.best is not None:
        write_figure(folder / PLOT, plot(result))
    write_text(folder / REPORT, page(result))

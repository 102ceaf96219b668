"""Writes what a search leaves in its folder. Every file is written whole or not at all."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from blockforge.figures import write_figure
from blockforge.files import make_folder, write_atomically, write_text
from blockforge.saving import spec_text
from blockforge.search.confirm.session import weights_of
from blockforge.search.report.files import OURS, best_files, failure_text, recipe_file, trials_csv
from blockforge.search.result import SearchResult
from blockforge.search.study.folder import BEST, FAILURES, PLOT, REPORT, TRIALS
from blockforge.search.study.records import TrialRecord
from blockforge.spec.emit import dump_yaml


def _write_weights(result: SearchResult, folder: Path, names: dict[str | None, str]) -> list[str]:
    """Put the weights of networks that were trained again beside their specs; the names of these files."""
    if result.confirmed is None:
        return []
    written = []
    for network, weights in weights_of(folder, result.plan, [name for name in names if name is not None]).items():
        file = Path(names[network]).with_suffix(".safetensors")
        write_atomically(folder / BEST / file, functools.partial(shutil.copyfile, weights))
        written.append(file.name)
    return written


def _write_recipes(result: SearchResult, folder: Path, names: list[tuple[TrialRecord, str]]) -> list[str]:
    """Put what candidates were trained by beside their specs, where each has chosen; the names of these files."""
    written = []
    for trial, name in names:
        if result.plan.recipe_holes and (recipe := result.recipe(trial)) is not None:
            written.append(recipe_file(name))
            write_text(folder / BEST / written[-1], dump_yaml(recipe.tree()))
    return written


def write_results(result: SearchResult, folder: Path) -> None:
    """Write `trials.csv`, `best/*.yaml`, `pareto.png` and `report.html`; `failures.txt` where trials failed, and
    `best/*.safetensors` of what was trained again."""
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
    recipes = _write_recipes(result, folder, [(by_number[n], name) for n, name in names.items()])
    kept = {
        *names.values(),
        *recipes,
        *_write_weights(result, folder, {by_number[n].candidate: name for n, name in names.items()}),
    }
    for old in (folder / BEST).iterdir():
        if OURS.fullmatch(old.name) and old.name not in kept:
            old.unlink()
    if result.best is not None:
        write_figure(folder / PLOT, plot(result))
    write_text(folder / REPORT, page(result))

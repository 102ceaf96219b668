"""Scores in a file that grows as they are found, so that a run that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blockforge.console.progress import counting
from blockforge.errors import RunError
from blockforge.files import append_text, cut_torn_line, make_folder
from blockforge.swapping.scores import Score
from blockforge.swapping.slots import Alternative

SCORES = "scores.jsonl"


def recorded(
    alternatives: Sequence[Alternative],
    score: Callable[[Alternative], Score],
    folder: Path | None,
    known: dict[str, Score],
    progress: bool = False,
) -> list[Score]:
    """The score of each alternative: from `known` where it is there, else computed and put there and into the folder's
    file.

    Args:
        known: as `known_scores` gives them.
    Raises: OutputError.
    """
    with counting("alternatives scored", len(alternatives), progress) as advance:
        for alternative in alternatives:
            if (key := _key(alternative)) not in known:
                known[key] = score(alternative)
                if folder is not None:
                    append_text(folder / SCORES, json.dumps([key, asdict(known[key])]) + "\n")
            advance()
    return [known[_key(alternative)] for alternative in alternatives]


def known_scores(folder: Path | None, run: Mapping[str, Any]) -> dict[str, Score]:
    """The scores in a folder, which is begun if it has none.

    Args:
        run: what the scores depend on beside the alternatives.
    Raises: RunError if they are of another run, or are none; OutputError.
    """
    if folder is None:
        return {}
    file = folder / SCORES
    cut_torn_line(file)
    if not file.exists() or not file.stat().st_size:
        make_folder(folder)
        append_text(file, json.dumps(run) + "\n")
        return {}
    first, *rows = file.read_text(encoding="utf-8").split("\n")
    try:
        before = json.loads(first)
        known = {key: Score(**values) for key, values in map(json.loads, filter(None, rows))}
    except (ValueError, TypeError) as e:
        raise RunError(f"{file} holds no scores: {e}\n  hint: another --out") from None
    if before != run:
        other = ", ".join(sorted(k for k in run if before.get(k) != run[k]))
        raise RunError(
            f"{folder} holds the scores of another run: other {other}\n  hint: another --out, or remove {file}"
        )
    return known


def _key(alternative: Alternative) -> str:
    said = f"{alternative.slot.name}: {alternative.label}"
    return f"{said} {alternative.mark}" if alternative.mark else said
